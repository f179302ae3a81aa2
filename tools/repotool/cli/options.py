"""Options that several verbs share, and what they mean."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import click

from repo_server.core.errors import FormatError
from repo_server.core.model import Arch, Channel, Os
from repo_server.core.version import Version
from repotool.errors import Usage
from repotool.tree import Tree, open_tree

PASSPHRASE_VARIABLE = "REPOTOOL_PASSPHRASE"  # noqa: S105 -- the variable's name

_Command = TypeVar("_Command", bound=Callable[..., Any])
Decorator: TypeAlias = Callable[[_Command], _Command]


class VersionType(click.ParamType[Version]):
    """A version as L5 says."""

    name = "version"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Version:
        """Parse, or say what is expected."""
        try:
            return value if isinstance(value, Version) else Version(value)
        except FormatError as error:
            self.fail(error.message, param, ctx)


def _own_or_group(context: click.Context, _parameter: click.Parameter, value: Path | None) -> Path | None:
    return value if value is not None else context.find_root().obj


tree_option = click.option(
    "--tree",
    type=click.Path(path_type=Path),
    metavar="DIR",
    callback=_own_or_group,
    help="The downloads tree (or REPOTOOL_TREE).",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON; its keys are stable (README.md).")
dry_run_option = click.option("--dry-run", is_flag=True, help="Show what would be done, and do nothing.")
yes_option = click.option("--yes", "-y", is_flag=True, help="Do not ask. Without a terminal nothing is asked anyway.")
by_option = click.option("--by", metavar="NAME", help="Who decided it.  [default: the user's name]")
channel_type = click.Choice([str(channel) for channel in Channel])
path_type = click.Path(path_type=Path)
component_option = click.option(
    "--component", "components", multiple=True, metavar="C", help="Only this one; repeatable."
)
os_option = click.option("--os", "os_name", type=click.Choice([str(item) for item in Os]), help="Only this system.")
arch_option = click.option("--arch", type=click.Choice([str(item) for item in Arch]), help="Only this architecture.")


def selecting(command: _Command) -> _Command:
    """Add the options that choose release files."""
    return component_option(os_option(arch_option(command)))


def now() -> datetime:
    """Return the wall clock's time."""
    return datetime.now(UTC)


def the_tree(path: Path | None, opening: Callable[[Path], Tree] = open_tree) -> Tree:
    """Open the tree that the options name; raise ``Usage`` if they name none."""
    if path is None:
        raise Usage("which tree? say --tree DIR, or set REPOTOOL_TREE")
    return opening(path)


def terminal() -> bool:
    """Whether somebody is there to be asked."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def confirmed(question: str, *, yes: bool) -> None:
    """Ask on a terminal; scripts are not asked. Ends the program when the answer is no."""
    if not yes and terminal():
        click.confirm(question, default=False, abort=True, err=True)


def user_name() -> str | None:
    """Return who runs this, as far as the environment says."""
    return next((os.environ[name] for name in ("SUDO_USER", "LOGNAME", "USER") if os.environ.get(name)), None)


def passphrase_for(path: Path) -> bytes:
    """Return the passphrase of a key file: from the environment, else typed; raise ``Usage`` without a terminal."""
    given = os.environ.get(PASSPHRASE_VARIABLE)
    if given is not None:
        return given.encode()
    if not terminal():
        raise Usage(f"{path} has a passphrase; set {PASSPHRASE_VARIABLE}")
    typed: str = click.prompt(f"Passphrase of {path}", hide_input=True, err=True)
    return typed.encode()


def new_passphrase() -> bytes:
    """Return a passphrase for new keys: from the environment, else typed twice; raise ``Usage``."""
    given = os.environ.get(PASSPHRASE_VARIABLE)
    if given is None:
        if not terminal():
            raise Usage(
                f"new keys get a passphrase: set {PASSPHRASE_VARIABLE}, or say --no-passphrase for trying things out"
            )
        given = click.prompt(
            "Passphrase for root.pem and release.pem", hide_input=True, confirmation_prompt=True, err=True
        )
    if not given:
        raise Usage(f"{PASSPHRASE_VARIABLE} is empty; set a passphrase, or say --no-passphrase")
    return given.encode()


def cache_folder(tree: Tree) -> Path:
    """Return where digests of a tree are remembered between runs, for this user alone."""
    import hashlib

    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")  # noqa: PTH111, PTH118 -- strings
    name = hashlib.sha256(os.fsencode(tree.root.resolve())).hexdigest()[:16]
    return Path(base) / "repotool" / name
