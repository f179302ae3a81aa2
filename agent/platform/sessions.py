"""Who sits at this machine, on Linux by logind and on macOS by the console: the port ``Sessions`` (FR-CMP-007)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from agent.ports import Programs

CALL_SECONDS = 10.0
_GRAPHICAL = frozenset({"x11", "wayland", "mir"})
"""A session of a terminal shows no component: an administrator by ssh is in nobody's way."""
_PROPERTIES = ("Id", "Name", "Class", "State", "Type", "LockedHint")
_NOBODYS = frozenset({0, 248})
"""Who owns the console while nobody is logged in on macOS: root, and the user of the setup assistant."""


class NoSessions:
    """No sessions: for an endpoint in a folder, whose components are nobody's desktop."""

    def active(self) -> tuple[str, ...]:
        """Return nothing."""
        return ()


class LogindSessions:
    """Asks ``loginctl``. Where there is no logind, nobody can be waited for."""

    def __init__(self, programs: Programs) -> None:
        self._programs = programs

    def active(self) -> tuple[str, ...]:
        """Return the graphical sessions in the foreground that are not locked."""
        ids = [line.split()[0] for line in self._loginctl("list-sessions", "--no-legend").splitlines() if line.strip()]
        if not ids:
            return ()
        shown = self._loginctl("show-session", *(f"--property={name}" for name in _PROPERTIES), *ids)
        return tuple(f"{one.get('Name', '?')} ({one['Type']})" for one in _blocks(shown) if _is_in_use(one))

    def _loginctl(self, *arguments: str) -> str:
        try:
            done = self._programs.run(["loginctl", "--no-pager", *arguments], Path("/"), {}, CALL_SECONDS)
        except OSError:
            return ""
        # One that ended since it was listed makes the whole call fail, and the others are shown all the same.
        return done.output


def _blocks(text: str) -> Iterator[dict[str, str]]:
    for block in text.split("\n\n"):
        yield dict(line.split("=", 1) for line in block.splitlines() if "=" in line)


def _is_in_use(session: dict[str, str]) -> bool:
    return (
        session.get("Class", "").startswith("user")
        and session.get("State") == "active"
        and session.get("Type") in _GRAPHICAL
        and session.get("LockedHint") != "yes"
    )


class ConsoleSessions:
    """Looks at the owner of ``/dev/console``, who is the user in front of a Mac."""

    def __init__(self, owner: Callable[[], int]) -> None:
        self._owner = owner

    def active(self) -> tuple[str, ...]:
        """Return the user at the console."""
        try:
            user = self._owner()
        except OSError:
            return ()
        return () if user in _NOBODYS else (f"user {user} (console)",)


def console_owner() -> int:
    """Return the user id that owns the console; raise ``OSError``."""
    return Path("/dev/console").stat().st_uid
