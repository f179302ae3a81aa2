"""The functions of Windows that the agent calls: their prototypes, and the libraries that have them.

This is the whole seam to Windows: tests put functions of the same prototypes in place of the libraries, so that all
else, structures and pointers included, runs everywhere. Sizes are written out, for ``ctypes.wintypes`` follows the
C compiler of the system that it runs on.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from collections.abc import Callable, Mapping
from ctypes import POINTER, c_int32, c_size_t, c_uint16, c_uint32, c_uint64, c_void_p, c_wchar_p
from dataclasses import dataclass
from typing import Any

ERROR_FILE_NOT_FOUND = 2
ERROR_PATH_NOT_FOUND = 3
ERROR_ACCESS_DENIED = 5
ERROR_SHARING_VIOLATION = 32
ERROR_LOCK_VIOLATION = 33
ERROR_FILE_EXISTS = 80
ERROR_INVALID_PARAMETER = 87
ERROR_DISK_FULL = 112
ERROR_CALL_NOT_IMPLEMENTED = 120
ERROR_DIR_NOT_EMPTY = 145
ERROR_ALREADY_EXISTS = 183
ERROR_MORE_DATA = 234
ERROR_DIRECTORY = 267
ERROR_PIPE_CONNECTED = 535
ERROR_IO_INCOMPLETE = 996
ERROR_IO_PENDING = 997
ERROR_SERVICE_ALREADY_RUNNING = 1056
ERROR_SERVICE_DOES_NOT_EXIST = 1060
ERROR_SERVICE_CANNOT_ACCEPT_CTRL = 1061
ERROR_SERVICE_NOT_ACTIVE = 1062
ERROR_FAILED_SERVICE_CONTROLLER_CONNECT = 1063
ERROR_SERVICE_MARKED_FOR_DELETE = 1072
ERROR_SERVICE_EXISTS = 1073
WAIT_TIMEOUT = 258
WAIT_FAILED = 0xFFFF_FFFF
INVALID_HANDLE = 0xFFFF_FFFF_FFFF_FFFF
"""INVALID_HANDLE_VALUE of a 64-bit Windows, as ctypes returns it."""

HELD = frozenset({ERROR_ACCESS_DENIED, ERROR_SHARING_VIOLATION, ERROR_LOCK_VIOLATION})
"""What Windows says of a file that somebody has open."""
_ERRNO = {
    ERROR_FILE_NOT_FOUND: errno.ENOENT,
    ERROR_PATH_NOT_FOUND: errno.ENOENT,
    ERROR_ACCESS_DENIED: errno.EACCES,
    ERROR_SHARING_VIOLATION: errno.EACCES,
    ERROR_LOCK_VIOLATION: errno.EACCES,
    ERROR_FILE_EXISTS: errno.EEXIST,
    ERROR_ALREADY_EXISTS: errno.EEXIST,
    ERROR_DISK_FULL: errno.ENOSPC,
    ERROR_DIR_NOT_EMPTY: errno.ENOTEMPTY,
    ERROR_DIRECTORY: errno.ENOTDIR,
}
"""What the C library of Windows makes of its errors, as far as the agent tells them apart."""


class ServiceStatusProcess(ctypes.Structure):
    """SERVICE_STATUS_PROCESS."""

    _fields_ = (
        ("service_type", c_uint32),
        ("current_state", c_uint32),
        ("controls_accepted", c_uint32),
        ("win32_exit_code", c_uint32),
        ("service_exit_code", c_uint32),
        ("check_point", c_uint32),
        ("wait_hint", c_uint32),
        ("process_id", c_uint32),
        ("flags", c_uint32),
    )


class ServiceStatus(ctypes.Structure):
    """SERVICE_STATUS, which ControlService wants to fill."""

    _fields_ = ServiceStatusProcess._fields_[:7]


class ServiceConfig(ctypes.Structure):
    """QUERY_SERVICE_CONFIGW."""

    _fields_ = (
        ("service_type", c_uint32),
        ("start_type", c_uint32),
        ("error_control", c_uint32),
        ("command_line", c_wchar_p),
        ("load_order_group", c_wchar_p),
        ("tag", c_uint32),
        ("dependencies", c_void_p),
        ("account", c_wchar_p),
        ("display_name", c_wchar_p),
    )


class ScAction(ctypes.Structure):
    """SC_ACTION: what to do when a service has failed, and after how many milliseconds."""

    _fields_ = (("kind", c_uint32), ("delay", c_uint32))


class FailureActions(ctypes.Structure):
    """SERVICE_FAILURE_ACTIONSW."""

    _fields_ = (
        ("reset_period", c_uint32),
        ("reboot_message", c_wchar_p),
        ("command", c_wchar_p),
        ("count", c_uint32),
        ("actions", POINTER(ScAction)),
    )


class ProcessEntry(ctypes.Structure):
    """PROCESSENTRY32W."""

    _fields_ = (
        ("size", c_uint32),
        ("usage", c_uint32),
        ("pid", c_uint32),
        ("heap", c_size_t),
        ("module", c_uint32),
        ("threads", c_uint32),
        ("parent", c_uint32),
        ("priority", c_int32),
        ("flags", c_uint32),
        ("program", c_uint16 * 260),
    )


class FileAttributeTagInfo(ctypes.Structure):
    """FILE_ATTRIBUTE_TAG_INFO."""

    _fields_ = (("attributes", c_uint32), ("reparse_tag", c_uint32))


class SecurityAttributes(ctypes.Structure):
    """SECURITY_ATTRIBUTES."""

    _fields_ = (("length", c_uint32), ("descriptor", c_void_p), ("inherit", c_int32))


class Overlapped(ctypes.Structure):
    """OVERLAPPED: where in a file a lock lies, and what is under way."""

    _fields_ = (
        ("internal", c_void_p),
        ("internal_high", c_void_p),
        ("offset", c_uint32),
        ("offset_high", c_uint32),
        ("event", c_void_p),
    )


# What Windows calls back. On 64 bits there is one calling convention, so CFUNCTYPE is that of Windows, too.
ConsoleHandler = ctypes.CFUNCTYPE(c_int32, c_uint32)
ControlHandler = ctypes.CFUNCTYPE(c_uint32, c_uint32, c_uint32, c_void_p, c_void_p)
ServiceMain = ctypes.CFUNCTYPE(None, c_uint32, c_void_p)


class ServiceTableEntry(ctypes.Structure):
    """SERVICE_TABLE_ENTRYW."""

    _fields_ = (("name", c_wchar_p), ("main", ServiceMain))


Prototype = tuple[Any, ...]
"""The type of the result, then those of the arguments."""

ADVAPI32: Mapping[str, Prototype] = {
    "OpenSCManagerW": (c_void_p, c_wchar_p, c_wchar_p, c_uint32),
    "OpenServiceW": (c_void_p, c_void_p, c_wchar_p, c_uint32),
    "CreateServiceW": (
        c_void_p, c_void_p, c_wchar_p, c_wchar_p, c_uint32, c_uint32, c_uint32, c_uint32, c_wchar_p, c_wchar_p,
        c_void_p, c_wchar_p, c_wchar_p, c_wchar_p,
    ),
    "ChangeServiceConfigW": (
        c_int32, c_void_p, c_uint32, c_uint32, c_uint32, c_wchar_p, c_wchar_p, c_void_p, c_wchar_p, c_wchar_p,
        c_wchar_p, c_wchar_p,
    ),
    "ChangeServiceConfig2W": (c_int32, c_void_p, c_uint32, c_void_p),
    "QueryServiceConfigW": (c_int32, c_void_p, c_void_p, c_uint32, POINTER(c_uint32)),
    "StartServiceW": (c_int32, c_void_p, c_uint32, c_void_p),
    "ControlService": (c_int32, c_void_p, c_uint32, POINTER(ServiceStatus)),
    "QueryServiceStatusEx": (
        c_int32, c_void_p, c_uint32, POINTER(ServiceStatusProcess), c_uint32, POINTER(c_uint32),
    ),
    "DeleteService": (c_int32, c_void_p),
    "StartServiceCtrlDispatcherW": (c_int32, c_void_p),
    "RegisterServiceCtrlHandlerExW": (c_void_p, c_wchar_p, ControlHandler, c_void_p),
    "SetServiceStatus": (c_int32, c_void_p, POINTER(ServiceStatus)),
    "CloseServiceHandle": (c_int32, c_void_p),
    "ConvertStringSecurityDescriptorToSecurityDescriptorW": (
        c_int32, c_wchar_p, c_uint32, POINTER(c_void_p), POINTER(c_uint32),
    ),
    "GetSecurityDescriptorDacl": (c_int32, c_void_p, POINTER(c_int32), POINTER(c_void_p), POINTER(c_int32)),
    "GetSecurityDescriptorOwner": (c_int32, c_void_p, POINTER(c_void_p), POINTER(c_int32)),
    "GetNamedSecurityInfoW": (
        c_uint32, c_wchar_p, c_uint32, c_uint32, POINTER(c_void_p), c_void_p, POINTER(c_void_p), c_void_p,
        POINTER(c_void_p),
    ),
    "GetSecurityDescriptorControl": (c_int32, c_void_p, POINTER(c_uint16), POINTER(c_uint32)),
    "ConvertSecurityDescriptorToStringSecurityDescriptorW": (
        c_int32, c_void_p, c_uint32, c_uint32, POINTER(c_void_p), c_void_p,
    ),
    "SetNamedSecurityInfoW": (c_uint32, c_wchar_p, c_uint32, c_uint32, c_void_p, c_void_p, c_void_p, c_void_p),
}  # fmt: skip

KERNEL32: Mapping[str, Prototype] = {
    "OpenProcess": (c_void_p, c_uint32, c_int32, c_uint32),
    "GetProcessTimes": (
        c_int32,
        c_void_p,
        POINTER(c_uint64),
        POINTER(c_uint64),
        POINTER(c_uint64),
        POINTER(c_uint64),
    ),
    "CreateToolhelp32Snapshot": (c_void_p, c_uint32, c_uint32),
    "Process32FirstW": (c_int32, c_void_p, POINTER(ProcessEntry)),
    "Process32NextW": (c_int32, c_void_p, POINTER(ProcessEntry)),
    "TerminateProcess": (c_int32, c_void_p, c_uint32),
    "WaitForSingleObject": (c_uint32, c_void_p, c_uint32),
    "CloseHandle": (c_int32, c_void_p),
    "CreateEventW": (c_void_p, c_void_p, c_int32, c_int32, c_wchar_p),
    "SetEvent": (c_int32, c_void_p),
    "WaitForMultipleObjects": (c_uint32, c_uint32, c_void_p, c_int32, c_uint32),
    "ResetEvent": (c_int32, c_void_p),
    "CreateNamedPipeW": (
        c_void_p,
        c_wchar_p,
        c_uint32,
        c_uint32,
        c_uint32,
        c_uint32,
        c_uint32,
        c_uint32,
        POINTER(SecurityAttributes),
    ),
    "ConnectNamedPipe": (c_int32, c_void_p, POINTER(Overlapped)),
    "DisconnectNamedPipe": (c_int32, c_void_p),
    "GetOverlappedResult": (c_int32, c_void_p, POINTER(Overlapped), POINTER(c_uint32), c_int32),
    "ReadFile": (c_int32, c_void_p, c_void_p, c_uint32, c_void_p, POINTER(Overlapped)),
    "WriteFile": (c_int32, c_void_p, c_void_p, c_uint32, c_void_p, POINTER(Overlapped)),
    "CancelIo": (c_int32, c_void_p),
    "SetConsoleCtrlHandler": (c_int32, ConsoleHandler, c_int32),
    "CreateJobObjectW": (c_void_p, c_void_p, c_wchar_p),
    "SetInformationJobObject": (c_int32, c_void_p, c_uint32, c_void_p, c_uint32),
    "AssignProcessToJobObject": (c_int32, c_void_p, c_void_p),
    "MoveFileExW": (c_int32, c_wchar_p, c_wchar_p, c_uint32),
    "CreateFileW": (c_void_p, c_wchar_p, c_uint32, c_uint32, c_void_p, c_uint32, c_uint32, c_void_p),
    "GetFileInformationByHandleEx": (c_int32, c_void_p, c_uint32, c_void_p, c_uint32),
    "LockFileEx": (c_int32, c_void_p, c_uint32, c_uint32, c_uint32, c_uint32, POINTER(Overlapped)),
    "LocalFree": (c_void_p, c_void_p),
}

SHELL32: Mapping[str, Prototype] = {"IsUserAnAdmin": (c_int32,)}


class WindowsFailure(OSError):
    """A call failed; ``errno`` is the error number of Windows, ``strerror`` names the call."""


@dataclass(frozen=True, slots=True)
class Win32:
    """The libraries, with typed functions, and the error number of the last call that failed."""

    advapi32: Any
    kernel32: Any
    shell32: Any
    last_error: Callable[[], int]
    descriptor_of: Callable[[int, int], int]
    """Makes a handle a descriptor of the C library (``msvcrt.open_osfhandle``), which owns it from then on."""
    handle_of: Callable[[int], int]

    def failure(self, call: str) -> WindowsFailure:
        """Return the error of a call that has just failed."""
        return failure_of(call, self.last_error())


def failure_of(call: str, number: int) -> WindowsFailure:
    """Return a call's error by its number."""
    return WindowsFailure(number, f"{call} failed with Windows error {number}")


def file_error(call: str, number: int, path: os.PathLike[str] | str) -> OSError:
    """Return a failed call on a file as Python says it on every system; ``winerror`` is the number of Windows."""
    code = _ERRNO.get(number, errno.EIO)
    said = "it is held by another program" if number in HELD else os.strerror(code)
    error = OSError(code, f"{said} ({call}: Windows error {number})", os.fspath(path))
    error.winerror = number  # type: ignore[attr-defined,unused-ignore]  # typeshed has it for Windows only
    return error


def bind(library: Any, prototypes: Mapping[str, Prototype]) -> Any:
    """Give a library's functions their types: without, ctypes cuts handles to 32 bits."""
    for name, (result, *arguments) in prototypes.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


def load_win32() -> Win32:
    """Return the system's own libraries; raise ``OSError`` anywhere but on Windows."""
    if sys.platform == "win32":
        import msvcrt

        return Win32(
            bind(ctypes.WinDLL("advapi32", use_last_error=True), ADVAPI32),
            bind(ctypes.WinDLL("kernel32", use_last_error=True), KERNEL32),
            bind(ctypes.WinDLL("shell32", use_last_error=True), SHELL32),
            ctypes.get_last_error,
            msvcrt.open_osfhandle,
            msvcrt.get_osfhandle,
        )
    raise OSError(f"this is {sys.platform}, which has no advapi32.dll; expected Windows")
