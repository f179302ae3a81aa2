"""``ls``, ``doctor``, ``explain``: what the tree offers, what it does not, and why."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from repo_server.core.model import Arch, Channel, Device, FileState, Installed, Os, Platform, Problem, Release
from repo_server.core.names import ReleaseName
from repo_server.core.offer import Decision, decide
from repo_server.core.version import Version
from repo_server.tree import treeio
from repotool.advice import what_to_do
from repotool.cli import asking, options, show
from repotool.errors import Usage
from repotool.inventory import Selection
from repotool.look import Eyes, accept_removal, look, since
from repotool.ramp import describe
from repotool.sentences import count
from repotool.tables import Table, size
from repotool.tree import Tree, open_to_look

state_option = click.option(
    "--state",
    type=options.path_type,
    metavar="DIR",
    help="A server's state folder: what it has hashed need not be hashed again. Only read.",
)


def eyes_for(tree: Tree, state: Path | None) -> Eyes:
    """Return where this user's digests of a tree are remembered."""
    return Eyes(options.cache_folder(tree), state)


@click.command("ls")
@options.selecting
@click.option("--channel", type=options.channel_type, help="Only releases on this channel.")
@click.option("--all", "everything", is_flag=True, help="Also what is pending or a problem.")
@state_option
@options.tree_option
@options.json_option
def list_releases(
    *,
    components: tuple[str, ...],
    os_name: str | None,
    arch: str | None,
    channel: str | None,
    everything: bool,
    state: Path | None,
    tree: Path | None,
    as_json: bool,
) -> None:
    """List the releases that the tree offers, and those that are blocked."""
    opened, now = options.the_tree(tree), options.now()
    result = look(opened, eyes_for(opened, state), now)
    known = result.catalogue.config.components
    for name in components:
        if name not in known:
            raise Usage(f"--component {name}: this tree knows {', '.join(known)}")
    selection = Selection(None, components, os_name, arch)
    releases = sorted(
        (
            release
            for release in result.catalogue
            if selection.names(ReleaseName(release.id, "")) and (channel is None or release.channel == channel)
        ),
        key=lambda release: release.version,
        reverse=True,
    )
    releases.sort(key=lambda release: (release.component, release.platform))
    problems = result.problems if everything else ()
    if as_json:
        facts: dict[str, Any] = {"releases": [_release_fact(release, now) for release in releases]}
        if everything:
            facts["problems"] = _problem_facts(opened, problems)
        show.json(facts)
        return
    rows = [_row(release, now) for release in releases]
    rows += [("", "", "", "", str(problem.state), problem.code, "", problem.path) for problem in problems]
    columns = ("component", "version", "platform", "channel", "state", "reaches", "size", "file")
    show.table(Table(columns, rows, frozenset({"size"})))
    hidden = len(result.problems) - len(problems)
    if hidden:
        show.say(f"{count(hidden, 'file')} not offered; see `repotool doctor`.")


def _row(release: Release, now: datetime) -> tuple[str, ...]:
    return (
        release.component,
        str(release.version),
        str(release.platform),
        str(release.channel),
        "offered" if release.block is None else "blocked",
        describe(release.rollout, now) if release.block is None else release.block.reason,
        size(release.size),
        release.path,
    )


def _release_fact(release: Release, now: datetime) -> dict[str, Any]:
    return {
        "component": release.component,
        "version": str(release.version),
        "os": release.platform.os,
        "arch": release.platform.arch,
        "channel": release.channel,
        "state": "offered" if release.block is None else "blocked",
        "blocked_reason": None if release.block is None else release.block.reason,
        "rollout": describe(release.rollout, now),
        "path": release.path,
        "size": release.size,
        "sha256": release.sha256,
        "key_ids": [signature.key_id for signature in release.signatures],
        "title": release.meta.title,
        "release_notes_url": release.meta.release_notes_url,
        "published_at": release.meta.published_at,
        "requires": [{"name": item.name, "min_version": str(item.min_version)} for item in release.requires],
    }


@click.command()
@click.option(
    "--accept-removal", "accept", is_flag=True, help="Tell the server that the releases which are gone are meant to be."
)
@state_option
@options.tree_option
@options.json_option
@options.dry_run_option
@click.pass_context
def doctor(
    context: click.Context,
    *,
    accept: bool,
    state: Path | None,
    tree: Path | None,
    as_json: bool,
    dry_run: bool,
) -> None:
    """Show every file that is not offered, why, and what to do. Exit code 1 if there is any."""
    opened = options.the_tree(tree, open_to_look)
    if accept:
        if not dry_run:
            with treeio.tree_lock(opened.root):
                accept_removal(opened)
        if as_json:
            show.json({"dry_run": dry_run, "accepted": True})
        else:
            show.say(
                "The server takes the removal over at its next scan." if not dry_run else "Would accept the removal."
            )
        return
    result = look(opened, eyes_for(opened, state), options.now())
    problems = sorted(result.problems, key=lambda problem: (problem.state, problem.path, problem.code))
    if as_json:
        show.json({"releases": len(result.catalogue), "problems": _problem_facts(opened, problems)})
    elif problems:
        for problem in problems:
            path, started = problem.path or "(the tree)", since(opened, problem)
            show.heading(str(problem.state), f"{problem.code}  {path}  (since {started:%Y-%m-%d %H:%M} UTC)")
            show.say(f"    {problem.message}\n    → {what_to_do(problem)}")
        waiting = sum(problem.state is FileState.PENDING for problem in problems)
        show.say(f"{count(len(problems) - waiting, 'problem')}, {waiting} pending, {len(result.catalogue)} offered.")
    else:
        show.say(f"No problems; {count(len(result.catalogue), 'release')} offered.")
    context.exit(1 if problems else 0)


def _problem_facts(tree: Tree, problems: Iterable[Problem]) -> list[dict[str, Any]]:
    return [
        {
            "path": problem.path,
            "code": problem.code,
            "state": problem.state,
            "message": problem.message,
            "since": since(tree, problem),
            "do": what_to_do(problem),
        }
        for problem in problems
    ]


@click.command()
@click.option("--os", "os_name", required=True, type=click.Choice([str(item) for item in Os]))
@click.option("--arch", required=True, type=click.Choice([str(item) for item in Arch]))
@click.option("--channel", type=options.channel_type, help="What the agent is configured for.")
@click.option(
    "--component",
    "components",
    multiple=True,
    type=asking.HeldType(),
    metavar="C[=VERSION]",
    help="What is installed; without a version: wanted and not there. Repeatable.  [default: all, not there]",
)
@click.option("--device-id", type=asking.device_id_type, metavar="UUID")
@click.option("--org", type=asking.words_type, metavar="ID")
@click.option("--site", type=asking.words_type, metavar="ID")
@state_option
@options.tree_option
@options.json_option
def explain(  # noqa: PLR0913 -- one parameter per option
    *,
    os_name: str,
    arch: str,
    channel: str | None,
    components: tuple[tuple[str, Version | None], ...],
    device_id: str | None,
    org: str | None,
    site: str | None,
    state: Path | None,
    tree: Path | None,
    as_json: bool,
) -> None:
    """Say what a device would be offered now, and why; the server decides by the same function."""
    opened, now = options.the_tree(tree), options.now()
    catalogue = look(opened, eyes_for(opened, state), now).catalogue
    platform = Platform(Os(os_name), Arch(arch))
    wanted = components or tuple(
        (name, None) for name in catalogue.config.components if catalogue.releases(platform, name)
    )
    device = Device(
        platform,
        _installed(wanted),
        None if channel is None else Channel(channel),
        device_id,
        None if org is None else org.strip().lower(),
        None if site is None else site.strip().lower(),
    )
    decision = decide(catalogue, device, now)
    if as_json:
        show.json(_decision_fact(decision))
        return
    show.say(f"Channel {decision.channel.channel} (from: {decision.channel.source})")
    rows = [
        (
            reason.component,
            str(reason.code),
            f"{reason.changes_at:%Y-%m-%d %H:%M}" if reason.changes_at else "",
            reason.detail,
        )
        for reason in decision.reasons
    ]
    show.table(Table(("component", "code", "changes (UTC)", "why"), rows))
    for number, offer in enumerate(decision.offers, 1):
        show.say(f"{number}. {offer.action} {offer.release.component} to {offer.release.version}: {offer.release.path}")


def _installed(pairs: Iterable[tuple[str, Version | None]]) -> tuple[Installed, ...]:
    found: dict[str, Installed] = {}
    for name, version in pairs:
        if name in found:
            raise Usage(f"--component {name} is given twice")
        found[name] = Installed(name, version)
    return tuple(found.values())


def _decision_fact(decision: Decision) -> dict[str, Any]:
    return {
        "channel": decision.channel.channel,
        "channel_source": decision.channel.source,
        "offers": [
            {
                "component": offer.release.component,
                "version": str(offer.release.version),
                "action": offer.action,
                "path": offer.release.path,
            }
            for offer in decision.offers
        ],
        "reasons": [
            {
                "component": reason.component,
                "code": reason.code,
                "detail": reason.detail,
                "version": None if reason.release is None else str(reason.release.version),
                "changes_at": reason.changes_at,
            }
            for reason in decision.reasons
        ],
    }


COMMANDS = (list_releases, doctor, explain)
