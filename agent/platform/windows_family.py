"""What a service has started: on Windows that outlives it, and may hold the files that are replaced (FR-CMP-001).

A job object would not do: its name is gone with the agent's last handle, and the agent need not be resident. So the
table of processes is read. A process keeps the id of its parent for ever; while we hold a parent, that id is its own.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import ExitStack
from ctypes import c_uint64, pointer
from typing import Self

from agent.platform import win32
from agent.platform.scm import ServiceProcess
from agent.platform.win32 import ProcessEntry, Win32

_PROCESSES = 0x2
_TERMINATE, _LOOK, _SYNCHRONIZE = 0x1, 0x1000, 0x10_0000


class Family:
    """A process and all that came from it, each held from the moment in which it was seen."""

    def __init__(self, api: Win32, root: int, own_pid: int) -> None:
        """``own_pid``: this process, which may itself have been started by the service; nothing of ours is held."""
        self._api = api
        self._root = root
        self._own_pid = own_pid
        self._held: dict[int, tuple[ServiceProcess, int]] = {}
        """Process id → the process, and when it began."""
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        if self._root:
            self._hold(self._root, 0)
            self.look()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def look(self) -> None:
        """Hold those that have come since; raise ``WindowsFailure``."""
        children: dict[int, list[int]] = {}
        parents = dict(self._table())
        for pid, parent in parents.items():
            children.setdefault(parent, []).append(pid)
        ours = {self._own_pid}
        above = parents.get(self._own_pid, 0)
        while above and above not in ours:
            ours.add(above)
            above = parents.get(above, 0)
        waiting = list(self._held)
        while waiting:
            parent = waiting.pop()
            strangers = (pid for pid in children.get(parent, ()) if pid not in ours and pid not in self._held)
            waiting += [pid for pid in strangers if self._hold(pid, self._held[parent][1])]

    def living_children(self) -> list[ServiceProcess]:
        """Return those that have not ended, but for the first of all."""
        return [process for pid, (process, _) in self._held.items() if pid != self._root and not process.ended()]

    def _hold(self, pid: int, not_before: int) -> bool:
        kernel = self._api.kernel32
        handle = kernel.OpenProcess(_TERMINATE | _LOOK | _SYNCHRONIZE, 0, pid)
        if not handle:
            # It has ended, or it is one of Windows' own, which no service starts.
            return False
        began, ended, in_kernel, in_user = c_uint64(), c_uint64(), c_uint64(), c_uint64()
        known = kernel.GetProcessTimes(handle, pointer(began), pointer(ended), pointer(in_kernel), pointer(in_user))
        if not known or began.value < not_before:
            # An older one whose parent had the same id before.
            kernel.CloseHandle(handle)
            return False
        self._stack.callback(kernel.CloseHandle, handle)
        self._held[pid] = (ServiceProcess(self._api, handle), began.value)
        return True

    def _table(self) -> Iterator[tuple[int, int]]:
        """Yield each process's id and its parent's."""
        kernel = self._api.kernel32
        snapshot = kernel.CreateToolhelp32Snapshot(_PROCESSES, 0)
        if snapshot in {None, win32.INVALID_HANDLE}:
            raise self._api.failure("CreateToolhelp32Snapshot")
        try:
            entry = ProcessEntry(size=ctypes.sizeof(ProcessEntry))
            more = kernel.Process32FirstW(snapshot, pointer(entry))
            while more:
                yield int(entry.pid), int(entry.parent)
                more = kernel.Process32NextW(snapshot, pointer(entry))
        finally:
            kernel.CloseHandle(snapshot)
