"""Who sits at this machine, or works on it by remote desktop, on Windows: the port ``Sessions`` (FR-CMP-007)."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Mapping
from ctypes import POINTER, c_int32, c_uint32, c_void_p, c_wchar_p
from typing import Any

from agent.platform.win32 import Prototype, bind

_ACTIVE = 0
"""WTSActive: somebody is logged in and connected; one who only disconnected is not active."""
_USER_NAME = 5


class SessionInfo(ctypes.Structure):
    """WTS_SESSION_INFOW."""

    _fields_ = (("id", c_uint32), ("station", c_wchar_p), ("state", c_int32))


WTSAPI32: Mapping[str, Prototype] = {
    "WTSEnumerateSessionsW": (
        c_int32, c_void_p, c_uint32, c_uint32, POINTER(POINTER(SessionInfo)), POINTER(c_uint32),
    ),
    "WTSQuerySessionInformationW": (
        c_int32, c_void_p, c_uint32, c_uint32, POINTER(c_void_p), POINTER(c_uint32),
    ),
    "WTSFreeMemory": (None, c_void_p),
}  # fmt: skip


class TerminalSessions:
    """Asks the session manager. What it refuses to tell, nobody can be waited for."""

    def __init__(self, wtsapi32: Any) -> None:
        self._api = wtsapi32

    def active(self) -> tuple[str, ...]:
        """Return the users of active sessions."""
        listed, count = POINTER(SessionInfo)(), c_uint32()
        if not self._api.WTSEnumerateSessionsW(None, 0, 1, ctypes.pointer(listed), ctypes.pointer(count)):
            return ()
        try:
            active = [listed[index].id for index in range(count.value) if listed[index].state == _ACTIVE]
        finally:
            self._api.WTSFreeMemory(ctypes.cast(listed, c_void_p))
        named = ((number, self._user(number)) for number in active)
        return tuple(f"{user} (session {number})" for number, user in named if user)

    def _user(self, number: int) -> str:
        """Return who is logged in; "" for a session that shows the logon screen."""
        text, size = c_void_p(), c_uint32()
        asked = self._api.WTSQuerySessionInformationW
        if not asked(None, number, _USER_NAME, ctypes.pointer(text), ctypes.pointer(size)) or not text.value:
            return ""
        try:
            return ctypes.wstring_at(text.value)
        finally:
            self._api.WTSFreeMemory(text)


def load_wtsapi32() -> Any:
    """Return the system's own library; raise ``OSError`` anywhere but on Windows."""
    if sys.platform == "win32":
        return bind(ctypes.WinDLL("wtsapi32", use_last_error=True), WTSAPI32)
    raise OSError(f"this is {sys.platform}, which has no wtsapi32.dll; expected Windows")
