"""Who may touch the agent's folders on Windows (NFR-SEC-007)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import c_int32, c_void_p, pointer
from pathlib import Path

from agent.platform.win32 import Win32, failure_of

PRIVATE = "O:BAD:P(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)"
"""Owned by the Administrators; full access for SYSTEM and Administrators, inherited by all below, nobody else."""
PUBLIC = f"{PRIVATE}(A;OICI;0x1200a9;;;BU)"
"""The same, and users may read and execute."""

_REVISION = 1
_FILE_OBJECT = 1
_OWNER, _DACL, _PROTECTED_DACL = 0x1, 0x4, 0x8000_0000


def protect(api: Win32, folder: Path, descriptor: str = PRIVATE) -> None:
    """Set a folder's owner and access list as a whole, whatever was there; raise ``WindowsFailure``.

    Protected: what the folder above grants, to all users say, is not inherited. What lies in the folder inherits.
    """
    with _descriptor(api, descriptor) as memory:
        owner, acl, present, defaulted = c_void_p(), c_void_p(), c_int32(), c_int32()
        if not api.advapi32.GetSecurityDescriptorOwner(memory, pointer(owner), pointer(defaulted)):
            raise api.failure("GetSecurityDescriptorOwner")
        if not api.advapi32.GetSecurityDescriptorDacl(memory, pointer(present), pointer(acl), pointer(defaulted)):
            raise api.failure("GetSecurityDescriptorDacl")
        number = api.advapi32.SetNamedSecurityInfoW(
            str(folder), _FILE_OBJECT, _OWNER | _DACL | _PROTECTED_DACL, owner, None, acl, None
        )
        if number:
            # Unlike the others, it returns the error itself.
            raise failure_of("SetNamedSecurityInfoW", number)


@contextmanager
def _descriptor(api: Win32, text: str) -> Iterator[c_void_p]:
    memory = c_void_p()
    convert = api.advapi32.ConvertStringSecurityDescriptorToSecurityDescriptorW
    if not convert(text, _REVISION, pointer(memory), None):
        raise api.failure("ConvertStringSecurityDescriptorToSecurityDescriptorW")
    try:
        yield memory
    finally:
        api.kernel32.LocalFree(memory)
