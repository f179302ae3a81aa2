"""Job objects of Windows: a program and all that it starts, ended together, also when the agent is killed."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from ctypes import c_int64, c_size_t, c_uint32, c_uint64
from typing import Any

from agent.platform.win32 import Win32

_EXTENDED_LIMIT_INFORMATION = 9
_KILL_ON_JOB_CLOSE = 0x2000
_PROCESS_TERMINATE, _PROCESS_SET_QUOTA = 0x0001, 0x0100
_CREATE_NO_WINDOW = 0x0800_0000


class ExtendedLimits(ctypes.Structure):
    """JOBOBJECT_EXTENDED_LIMIT_INFORMATION."""

    _fields_ = (
        ("process_time", c_int64),
        ("job_time", c_int64),
        ("flags", c_uint32),
        ("least_memory", c_size_t),
        ("most_memory", c_size_t),
        ("processes", c_uint32),
        ("affinity", c_size_t),
        ("priority", c_uint32),
        ("scheduling", c_uint32),
        ("io_counters", c_uint64 * 6),
        ("process_memory", c_size_t),
        ("job_memory", c_size_t),
        ("peak_process_memory", c_size_t),
        ("peak_job_memory", c_size_t),
    )


class JobTether:
    """The ``Tether`` of Windows. What a program starts before it is in the job, in its first instant, stays outside."""

    def __init__(self, api: Win32, options: Mapping[str, Any] | None = None) -> None:
        self._api = api
        self.options: Mapping[str, Any] = {"creationflags": _CREATE_NO_WINDOW} if options is None else options

    @contextmanager
    def ready(self) -> Iterator[Callable[[subprocess.Popen[bytes]], None]]:
        """Make a job; it ends with its last handle, which is ours, and all that is in it."""
        kernel = self._api.kernel32
        job = self._must(kernel.CreateJobObjectW(None, None), "CreateJobObjectW")
        try:
            limits = ExtendedLimits(flags=_KILL_ON_JOB_CLOSE)
            self._must(
                kernel.SetInformationJobObject(
                    job, _EXTENDED_LIMIT_INFORMATION, ctypes.addressof(limits), ctypes.sizeof(limits)
                ),
                "SetInformationJobObject",
            )
            yield lambda program: self._put(job, program)
        finally:
            kernel.CloseHandle(job)

    def _put(self, job: int, program: subprocess.Popen[bytes]) -> None:
        kernel = self._api.kernel32
        process = self._must(kernel.OpenProcess(_PROCESS_SET_QUOTA | _PROCESS_TERMINATE, 0, program.pid), "OpenProcess")
        try:
            # One that has ended already cannot be put into a job.
            if not kernel.AssignProcessToJobObject(job, process) and program.poll() is None:
                raise self._api.failure("AssignProcessToJobObject")
        finally:
            kernel.CloseHandle(process)

    def _must(self, result: int, call: str) -> int:
        if not result:
            raise self._api.failure(call)
        return result
