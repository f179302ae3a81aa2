"""``publish``, ``promote``, ``block``, ``unblock``, ``rollback``: what changes a tree."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from repo_server.core.model import Channel
from repo_server.core.names import ReleaseName
from repo_server.core.version import Version
from repo_server.tree import treeio
from repotool import promote as promotion
from repotool import recall
from repotool.cli import options, show
from repotool.cli.facts import eyes_for
from repotool.cli.packages import signer_of, signer_options
from repotool.destinations import Destination, destinations
from repotool.errors import Usage
from repotool.inventory import Selection, inventory, select
from repotool.look import look
from repotool.notes import Notes, parse_requires
from repotool.promote import PromoteStep
from repotool.publish import execute_publish
from repotool.publish_plan import PublishAction, PublishOptions, PublishStep, plan_publish
from repotool.ramp import EXPECTED, parse_ramp
from repotool.recall import RecallStep
from repotool.sentences import count
from repotool.sidecar_files import read_given
from repotool.tables import Table, size
from repotool.tree import Tree, tree_keys

_MAX_ROWS = 40
"""Rows that a person is shown of a plan; --json has all."""


def _lock(tree: Tree, *, dry_run: bool) -> AbstractContextManager[None]:
    return nullcontext() if dry_run else treeio.tree_lock(tree.root)


def _platform(name: ReleaseName) -> dict[str, str]:
    return {
        "component": name.id.component,
        "version": str(name.id.version),
        "os": name.id.platform.os,
        "arch": name.id.platform.arch,
    }


def _shown(table: Table, *, as_json: bool) -> None:
    if as_json:
        return
    show.table(Table(table.columns, table.rows[:_MAX_ROWS], table.numbers))
    if len(table.rows) > _MAX_ROWS:
        show.say(f"… and {count(len(table.rows) - _MAX_ROWS, 'more file')}; --json lists all")


@click.command()
@click.argument("files", type=options.path_type, nargs=-1, required=True, metavar="FILE...")
@click.option("--channel", type=options.channel_type, help="[default: what FILE.channel says, else beta]")
@click.option(
    "--meta",
    type=options.path_type,
    metavar="FILE",
    help="A whole .meta.  [default: FILE.meta, else from the options below]",
)
@click.option("--title", metavar="TEXT")
@click.option("--notes-url", metavar="URL")
@click.option("--requires", multiple=True, metavar="C>=VERSION", help="Beside what package.toml requires; repeatable.")
@click.option("--rollout", metavar="RAMP", help=f"{EXPECTED}.")
@click.option("--folder", default="", metavar="SUB", help="A folder in the tree; it has no meaning.")
@signer_options
@options.tree_option
@options.json_option
@options.dry_run_option
def publish(  # noqa: PLR0913 -- one parameter per option
    *,
    files: tuple[Path, ...],
    channel: str | None,
    meta: Path | None,
    title: str | None,
    notes_url: str | None,
    requires: tuple[str, ...],
    rollout: str | None,
    folder: str,
    key: Path | None,
    external: str | None,
    public_key: Path | None,
    tree: Path | None,
    as_json: bool,
    dry_run: bool,
) -> None:
    """Put signed release files into the tree.

    Digest and signatures are checked against the tree's root first; with --key, files are signed on the way. The same
    bytes again are nothing to do; other bytes under a published version are refused, for ever.
    """
    said = PublishOptions(
        None if channel is None else Channel(channel),
        None if meta is None else read_given(meta),
        Notes(title, notes_url, parse_requires(requires)),
        None if rollout is None else parse_ramp(rollout),
        folder.strip("/"),
    )
    opened, now = options.the_tree(tree), options.now()
    keys, signer = tree_keys(opened, now), signer_of(key, external, public_key)
    total = sum(file.stat().st_size for file in files if file.is_file())
    with _lock(opened, dry_run=dry_run):
        with show.progress("checking", total) as report:
            steps = plan_publish(opened, keys, files, said, signer, now, report)
        if not dry_run:
            copied = sum(step.digest.size for step in steps if step.action is PublishAction.PUBLISH)
            with show.progress("copying", copied) as report:
                execute_publish(opened, steps, report)
    if as_json:
        show.json({"dry_run": dry_run, "files": [_publish_fact(step) for step in steps]})
    rows = [(step.target, str(step.channel), size(step.digest.size), str(step.action), step.why) for step in steps]
    _shown(Table(("file", "channel", "size", "action", "why"), rows, frozenset({"size"})), as_json=as_json)


def _publish_fact(step: PublishStep) -> dict[str, Any]:
    return {
        **_platform(step.name),
        "path": step.target,
        "source": str(step.source),
        "channel": step.channel,
        "sha256": step.digest.sha256,
        "size": step.digest.size,
        "action": step.action,
        "why": step.why,
    }


@click.command()
@click.argument("version", type=options.VersionType())
@options.selecting
@click.option(
    "--from", "source", type=options.channel_type, help="[default: the channel below the target: beta for stable]"
)
@click.option("--to", "target", type=options.channel_type, help="[default: stable]")
@click.option("--rollout", metavar="RAMP", help=f"{EXPECTED}; starts now.")
@options.yes_option
@options.tree_option
@options.json_option
@options.dry_run_option
def promote(  # noqa: PLR0913 -- one parameter per option
    *,
    version: Version,
    components: tuple[str, ...],
    os_name: str | None,
    arch: str | None,
    source: str | None,
    target: str | None,
    rollout: str | None,
    yes: bool,
    tree: Path | None,
    as_json: bool,
    dry_run: bool,
) -> None:
    """Move all release files of VERSION to another channel.

    Rewrites .channel (and .rollout, if given) of every matching file. Running it again changes nothing; an interrupted
    run is finished by running it again.
    """
    move = promotion.move_of(source and Channel(source), target and Channel(target))  # type: ignore[arg-type]  # "" is no choice
    ramp = None if rollout is None else parse_ramp(rollout)
    opened = options.the_tree(tree)
    selection = Selection(version, components, os_name, arch)

    def plan() -> list[PromoteStep]:
        files = select(inventory(opened.root, opened.config), selection)
        return promotion.plan_promote(promotion.read_candidates(opened, files), move, ramp, options.now())

    with _lock(opened, dry_run=dry_run):
        steps = plan()
        changed = sum(step.changes for step in steps)
        if not as_json:
            _shown(_promote_table(steps), as_json=False)
        if changed and not dry_run:
            options.confirmed(f"Move {count(changed, 'file')} of {version} to {move.target}?", yes=yes)
            promotion.execute_promote(opened, steps)
    if as_json:
        facts = [_promote_fact(step) for step in steps]
        show.json({
            "dry_run": dry_run, "version": str(version), "from": move.source, "to": move.target,
            "changed": changed, "files": facts,
        })  # fmt: skip
    elif changed:
        show.say(f"{count(changed, 'file')} {'would move' if dry_run else 'moved'} to {move.target}.")
    else:
        show.say(f"Nothing to do: {version} is on {move.target}.")


def _promote_table(steps: Sequence[PromoteStep]) -> Table:
    rows = [(step.candidate.file.path, "yes" if step.changes else "no", step.detail) for step in steps]
    return Table(("file", "changes", "why"), rows)


def _promote_fact(step: PromoteStep) -> dict[str, Any]:
    return {
        **_platform(step.candidate.file.name),
        "path": step.candidate.file.path,
        "from": step.candidate.channel,
        "to": step.channel,
        "changed": step.changes,
        "why": step.why,
        "detail": step.detail,
    }


@dataclass(frozen=True, slots=True)
class _Recalling:
    """What ``block`` and ``rollback`` are told."""

    selection: Selection
    reason: str
    by: str | None
    yes: bool
    tree: Tree
    as_json: bool
    dry_run: bool


def _recalling(**of_reason: Any) -> Callable[[Callable[[_Recalling], None]], Callable[..., None]]:
    """Give a verb the options of a recall; ``of_reason`` says what is special about its ``--reason``."""

    def decorate(verb: Callable[[_Recalling], None]) -> Callable[..., None]:
        @click.argument("version", type=options.VersionType())
        @options.selecting
        @click.option("--reason", metavar="TEXT", **of_reason)
        @options.by_option
        @options.yes_option
        @options.tree_option
        @options.json_option
        @options.dry_run_option
        @functools.wraps(verb)
        def wrapper(
            *,
            version: Version,
            components: tuple[str, ...],
            os_name: str | None,
            arch: str | None,
            tree: Path | None,
            **others: Any,
        ) -> None:
            selection = Selection(version, components, os_name, arch)
            verb(_Recalling(selection=selection, tree=options.the_tree(tree), **others))

        return wrapper

    return decorate


@click.command()
@_recalling(required=True, help="Why; devices' reports and the audit show it.")
def block(said: _Recalling) -> None:
    """Recall VERSION: it is offered no more, and devices that have it are moved off it."""
    steps = _recall(said)
    if said.as_json:
        show.json(_recall_facts(said, steps))


@click.command()
@click.argument("version", type=options.VersionType())
@options.selecting
@options.yes_option
@options.tree_option
@options.json_option
@options.dry_run_option
def unblock(
    version: Version,
    components: tuple[str, ...],
    os_name: str | None,
    arch: str | None,
    yes: bool,
    tree: Path | None,
    as_json: bool,
    dry_run: bool,
) -> None:
    """Give a recalled VERSION back, on the channel that it was on."""
    opened, selection = options.the_tree(tree), Selection(version, components, os_name, arch)
    with _lock(opened, dry_run=dry_run):
        steps = recall.plan_unblock(opened, select(inventory(opened.root, opened.config), selection))
        _shown(_recall_table(steps), as_json=as_json)
        _carry_out(opened, steps, f"Offer {version} again?", yes=yes, dry_run=dry_run)
    if as_json:
        show.json({"dry_run": dry_run, "version": str(version), "files": [_recall_fact(step) for step in steps]})


@click.command()
@_recalling(default="rolled back", show_default=True)
def rollback(said: _Recalling) -> None:
    """Recall VERSION and show what the devices that have it are offered instead."""
    steps, now = _recall(said), options.now()
    catalogue = look(said.tree, eyes_for(said.tree, None), now).catalogue
    recalled = [step.file.name.id for step in steps]
    if said.dry_run:
        catalogue = recall.as_if_blocked(catalogue, recalled, said.reason)
    going = list(destinations(catalogue, recalled, now))
    if said.as_json:
        show.json({**_recall_facts(said, steps), "destinations": [_destination_fact(item) for item in going]})
        return
    rows = [(str(item.recalled), str(item.channel), str(item.version or "stay"), item.detail) for item in going]
    _shown(Table(("devices with", "on", "go to", "why"), rows), as_json=False)


def _destination_fact(item: Destination) -> dict[str, Any]:
    return {
        **_platform(ReleaseName(item.recalled, "")),
        "channel": item.channel,
        "goes_to": None if item.version is None else str(item.version),
        "detail": item.detail,
    }


def _recall(said: _Recalling) -> list[RecallStep]:
    if not said.reason.strip():
        raise Usage("--reason is empty; say why the release is recalled")
    with _lock(said.tree, dry_run=said.dry_run):
        files = select(inventory(said.tree.root, said.tree.config), said.selection)
        steps = recall.plan_block(said.tree, files, said.reason, said.by or options.user_name(), options.now())
        _shown(_recall_table(steps), as_json=said.as_json)
        _carry_out(said.tree, steps, f"Recall {said.selection}?", yes=said.yes, dry_run=said.dry_run)
    return steps


def _carry_out(tree: Tree, steps: Sequence[RecallStep], question: str, *, yes: bool, dry_run: bool) -> None:
    if not dry_run and any(step.action is not recall.RecallAction.NOTHING for step in steps):
        options.confirmed(question, yes=yes)
        recall.execute_recall(tree, steps)


def _recall_table(steps: Sequence[RecallStep]) -> Table:
    return Table(("file", "action", "why"), [(step.file.path, str(step.action), step.why) for step in steps])


def _recall_fact(step: RecallStep) -> dict[str, Any]:
    return {**_platform(step.file.name), "path": step.file.path, "action": step.action, "why": step.why}


def _recall_facts(said: _Recalling, steps: Sequence[RecallStep]) -> dict[str, Any]:
    return {
        "dry_run": said.dry_run,
        "version": str(said.selection.version),
        "reason": said.reason,
        "files": [_recall_fact(step) for step in steps],
    }


COMMANDS = (publish, promote, block, unblock, rollback)
