"""Who works at a machine, as each system tells it (FR-CMP-007)."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping, Sequence
from ctypes import c_uint32, c_void_p, pointer
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agent.platform.sessions import ConsoleSessions, LogindSessions, console_owner
from agent.platform.windows_sessions import WTSAPI32, SessionInfo, TerminalSessions
from agent.ports import Finished

DESK = {"Id": "2", "Name": "ana", "Class": "user", "State": "active", "Type": "wayland", "LockedHint": "no"}


@dataclass
class Loginctl:
    """The port ``Programs``: answers as ``loginctl`` does, for these sessions."""

    sessions: Sequence[Mapping[str, str]]
    fails: bool = False

    def run(self, command: Sequence[str], folder: Path, facts: dict[str, str], timeout: float) -> Finished:
        assert (command[0], folder, facts, timeout > 0) == ("loginctl", Path("/"), {}, True)
        words = [word for word in command[1:] if not word.startswith("--")]
        if self.fails:
            raise FileNotFoundError(2, "No such file or directory")
        if words == ["list-sessions"]:
            return Finished(0, "\n".join(f"{one['Id']:>6} 1000 {one['Name']} seat0 tty2" for one in self.sessions))
        assert words == ["show-session", *(one["Id"] for one in self.sessions)]
        return Finished(0, "\n\n".join("\n".join(f"{k}={v}" for k, v in one.items()) for one in self.sessions))


@pytest.mark.parametrize(
    ("changes", "counts"),
    [
        ({}, True),
        ({"Type": "x11"}, True),
        ({"State": "online"}, False),
        ({"State": "closing"}, False),
        ({"LockedHint": "yes"}, False),
        ({"Class": "greeter"}, False),
        ({"Class": "manager"}, False),
        ({"Type": "tty"}, False),
    ],
)
def test_on_linux_a_session_in_use_is_graphical_in_the_foreground_and_not_locked(
    changes: dict[str, str], counts: bool
) -> None:
    ssh = {**DESK, "Id": "c1", "Type": "tty"}
    found = LogindSessions(Loginctl([ssh, {**DESK, **changes}])).active()
    assert found == ((f"ana ({changes.get('Type', 'wayland')})",) if counts else ())


@pytest.mark.parametrize("loginctl", [Loginctl([]), Loginctl([DESK], fails=True), Loginctl([{"Id": "x", "Name": "y"}])])
def test_where_logind_says_nothing_nobody_is_waited_for(loginctl: Loginctl) -> None:
    assert LogindSessions(loginctl).active() == ()


@pytest.mark.parametrize(("user", "count"), [(501, 1), (0, 0), (248, 0)])
def test_on_macos_the_console_belongs_to_who_is_logged_in(user: int, count: int) -> None:
    assert len(ConsoleSessions(lambda: user).active()) == count


def test_a_console_that_cannot_be_looked_at_is_nobodys() -> None:
    def refused() -> int:
        raise PermissionError(1, "Operation not permitted")

    assert ConsoleSessions(refused).active() == ()


@pytest.mark.skipif(not Path("/dev/console").exists(), reason="this container has no console")
def test_the_owner_of_the_console_is_read() -> None:
    assert console_owner() == os.stat("/dev/console").st_uid  # noqa: PTH116 -- another way than the code's


@dataclass
class WtsApi:
    """wtsapi32 with C functions of the agent's own prototypes; it counts what is not freed."""

    sessions: Sequence[tuple[int, int, str]]
    """Number, state, user."""
    refuses: bool = False
    held: dict[int, Any] = field(default_factory=dict)

    def library(self) -> SimpleNamespace:
        made = {name: ctypes.CFUNCTYPE(*types)(getattr(self, name)) for name, types in WTSAPI32.items()}
        return SimpleNamespace(**made)

    def WTSEnumerateSessionsW(self, server: Any, reserved: int, version: int, out: Any, count: Any) -> int:  # noqa: N802
        assert (server, reserved, version) == (None, 0, 1)
        if self.refuses:
            return 0
        rows = (SessionInfo * len(self.sessions))(*((number, "", state) for number, state, _ in self.sessions))
        self.held[ctypes.addressof(rows)] = rows
        out[0] = ctypes.cast(rows, type(pointer(rows[0])))
        count[0] = c_uint32(len(self.sessions))
        return 1

    def WTSQuerySessionInformationW(self, server: Any, number: int, what: int, out: Any, size: Any) -> int:  # noqa: N802
        assert (server, what) == (None, 5)
        text = ctypes.create_unicode_buffer(next(user for known, _, user in self.sessions if known == number))
        self.held[ctypes.addressof(text)] = text
        out[0] = c_void_p(ctypes.addressof(text))
        size[0] = c_uint32(ctypes.sizeof(text))
        return 1

    def WTSFreeMemory(self, memory: int) -> None:  # noqa: N802
        del self.held[memory]


def test_on_windows_active_sessions_with_a_user_count_and_all_memory_is_given_back() -> None:
    """0: the services; 1: at the machine; 2: disconnected; 3: by remote desktop; 4: the logon screen."""
    api = WtsApi([(0, 4, ""), (1, 0, "ana"), (2, 4, "ben"), (3, 0, "eva"), (4, 0, "")])
    assert TerminalSessions(api.library()).active() == ("ana (session 1)", "eva (session 3)")
    assert api.held == {}


def test_what_windows_refuses_to_tell_is_nobody() -> None:
    assert TerminalSessions(WtsApi([(1, 0, "ana")], refuses=True).library()).active() == ()
