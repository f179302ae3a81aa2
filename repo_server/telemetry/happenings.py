"""What happened to releases, rules and credentials, told from two states of them (design §7, NFR-AUD-001). Pure.

A *state* is what the event log last recorded of a subject, as JSON; a *change* takes a subject from one state to the
next and carries the happenings that it consists of. So an event is told once, whoever looks, and also after a restart.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Iterator
from typing import Any, TypeAlias

import msgspec

from repo_server.access.auth import Keys
from repo_server.core.catalogue import Catalogue
from repo_server.core.model import Channel, FileState, Release
from repo_server.tree.live import Change, ScanResult

State: TypeAlias = dict[str, Any]

RELEASE, PROBLEM, RULES = "release ", "problem ", "rules "


class EventKind(enum.StrEnum):
    """What can happen."""

    FIRST_LOOK = "first_look"
    """A server began to tell."""
    PUBLISH = "publish"
    PROMOTE = "promote"
    DEMOTE = "demote"
    MOVE = "move"
    """The file has another place in the tree."""
    REMOVE = "remove"
    RECALL = "recall"
    RECALL_CHANGED = "recall_changed"
    UNBLOCK = "unblock"
    ROLLOUT = "rollout"
    PAUSE = "pause"
    HALT = "halt"
    RESUME = "resume"
    PROBLEM_APPEARED = "problem_appeared"
    PROBLEM_CLEARED = "problem_cleared"
    RULES_CHANGED = "rules_changed"
    SECRET_ADDED = "secret_added"  # noqa: S105 -- a kind of event
    SECRET_CHANGED = "secret_changed"  # noqa: S105 -- same
    SECRET_REMOVED = "secret_removed"  # noqa: S105 -- same
    TOKEN_ADDED = "token_added"  # noqa: S105 -- same
    TOKEN_CHANGED = "token_changed"  # noqa: S105 -- same
    TOKEN_REMOVED = "token_removed"  # noqa: S105 -- same


class Happening(msgspec.Struct, frozen=True):
    """One event, without who and when."""

    kind: EventKind
    subject: str
    file: str | None
    """Path in the tree of the file that says so."""
    by: str | None = None
    """Who it was, where the file says that."""
    details: dict[str, Any] | None = None


def states_of_tree(result: ScanResult, server: str, change: Change | None = None) -> dict[str, State]:
    """Return the states of everything in a tree; problems are those of one server's copy.

    Of releases only those of a change, if one is given: a promotion must not cost a look at all (design §9).
    """
    releases = result.catalogue if change is None else change.added
    found = {f"{RELEASE}{release.id}": _of_release(release) for release in releases}
    for problem in result.problems:
        if problem.state is FileState.PROBLEM:
            found[f"{PROBLEM}{server} {problem.code} {problem.path}"] = {"code": problem.code, "path": problem.path}
    return found | _of_rules(result.catalogue)


def states_of_keys(kind: str, keys: Keys, server: str) -> dict[str, State]:
    """Return the states of secrets or tokens. The mark tells a changed one, and is too short to tell the secret."""
    return {
        f"{kind} {server} {name}": {"name": name, "mark": hashlib.sha256(known).hexdigest()[:4]}
        | ({"role": str(keys.roles[name])} if name in keys.roles else {})
        for name, known in keys.digests.items()
    }


def happenings(subject: str, before: State | None, after: State | None) -> list[Happening]:
    """Return what happened to a subject; ``None``: it was not there, or is there no more."""
    kind, _, name = subject.partition(" ")
    if before == after:
        return []
    if subject.startswith(RELEASE):
        return list(_to_release(name, before, after))
    if subject.startswith(PROBLEM):
        known = after or before or {}
        event = EventKind.PROBLEM_CLEARED if after is None else EventKind.PROBLEM_APPEARED
        return [Happening(event, known["path"] or "the tree", known["path"] or None, None, {"code": known["code"]})]
    if subject.startswith(RULES):
        return [Happening(EventKind.RULES_CHANGED, name, name)]
    known = after or before or {}
    what = "added" if before is None else "changed" if after is not None else "removed"
    details = {"role": known["role"]} if "role" in known else None
    return [Happening(EventKind(f"{kind}_{what}"), known["name"], None, None, details)]


def _of_release(release: Release) -> State:
    state: State = {"path": release.path, "channel": str(release.channel), "sha256": release.sha256}
    if release.block is not None:
        state["blocked"] = {"reason": release.block.reason, "by": release.block.by}
    ramp = release.rollout
    if ramp is not None:
        state["rollout"] = {
            "start": ramp.start.isoformat(),
            "from": ramp.from_share,
            "to": ramp.to_share,
            "duration_seconds": ramp.duration_seconds,
        }
        state["paused"], state["halted"] = ramp.paused, ramp.halted
    return state


def _of_rules(catalogue: Catalogue) -> dict[str, State]:
    config, policy = catalogue.config, catalogue.policy
    said = {
        "repo.toml": [
            config.default_channel, sorted(config.components), sorted((k, v.text) for k, v in config.floors.items()),
        ],
        "policy/channels.toml": [
            policy.default, *(sorted(part.items()) for part in (policy.organisations, policy.sites, policy.devices)),
        ],
    }  # fmt: skip
    return {
        f"{RULES}{name}": {"digest": hashlib.sha256(msgspec.json.encode(value)).hexdigest()[:16]}
        for name, value in said.items()
    }


def _to_release(name: str, before: State | None, after: State | None) -> Iterator[Happening]:
    if after is None:
        yield Happening(EventKind.REMOVE, name, None, None, {"path": (before or {}).get("path")})
        return
    path = after["path"]
    if before is None:
        details: State = {key: after[key] for key in ("channel", "sha256", "rollout") if key in after}
        yield Happening(EventKind.PUBLISH, name, f"{path}.sha256", None, details)
        before = {"channel": after["channel"], "rollout": after.get("rollout"), "path": path}
    if before["channel"] != after["channel"]:
        order = [str(channel) for channel in Channel]
        up = order.index(after["channel"]) < order.index(before["channel"])
        moved = {"from": before["channel"], "to": after["channel"]}
        yield Happening(EventKind.PROMOTE if up else EventKind.DEMOTE, name, f"{path}.channel", None, moved)
    if before["path"] != path:
        yield Happening(EventKind.MOVE, name, path, None, {"from": before["path"], "to": path})
    yield from _recalled(name, f"{path}.blocked", before.get("blocked"), after.get("blocked"))
    yield from _ramped(name, f"{path}.rollout", before, after)


def _recalled(name: str, file: str, before: State | None, after: State | None) -> Iterator[Happening]:
    if after is not None and before is None:
        yield Happening(EventKind.RECALL, name, file, after["by"], {"reason": after["reason"]})
    elif after is None and before is not None:
        yield Happening(EventKind.UNBLOCK, name, None)
    elif after != before and after is not None:
        yield Happening(EventKind.RECALL_CHANGED, name, file, after["by"], {"reason": after["reason"]})


def _ramped(name: str, file: str, before: State, after: State) -> Iterator[Happening]:
    if before.get("rollout") != after.get("rollout"):
        yield Happening(EventKind.ROLLOUT, name, file, None, {"rollout": after.get("rollout")})
    was, now = _standing(before), _standing(after)
    if was != now:
        yield Happening(_STANDINGS[now], name, file)


_STANDINGS = {"halted": EventKind.HALT, "paused": EventKind.PAUSE, "running": EventKind.RESUME}


def _standing(state: State) -> str:
    return "halted" if state.get("halted") else "paused" if state.get("paused") else "running"
