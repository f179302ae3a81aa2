"""Who may touch the agent's folders on Windows: owners and access lists (``access.py``, NFR-SEC-007)."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import c_int32, c_uint16, c_uint32, c_void_p, pointer
from pathlib import Path

from agent.platform.flaw import Flaw
from agent.platform.sddl import parse_sddl
from agent.platform.win32 import Win32, failure_of, file_error

PRIVATE = "O:BAD:P(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)"
"""Owned by the Administrators; full access for SYSTEM and Administrators, inherited by all below, nobody else."""
PUBLIC = f"{PRIVATE}(A;OICI;0x1200a9;;;BU)"
"""The same, and users may read and execute."""
ONLY_US = "D:P(A;;GA;;;SY)(A;;GA;;;BA)"
"""Of a pipe: SYSTEM and Administrators."""

_REVISION = 1
_FILE_OBJECT = 1
_OWNER, _DACL, _PROTECTED_DACL, _UNPROTECTED_DACL = 0x1, 0x4, 0x8000_0000, 0x2000_0000
_DACL_IS_PROTECTED = 0x1000
_ERROR_INVALID_OWNER = 1307


class WindowsAccess:
    """Owners and access lists."""

    def __init__(self, api: Win32) -> None:
        self._api = api

    def may_act(self, root_dir: Path, *, whole_machine: bool) -> bool:
        """Whether this user may change an endpoint: an administrator whose rights are not held back, or SYSTEM."""
        del root_dir, whole_machine
        return bool(self._api.shell32.IsUserAnAdmin())

    def who_may(self) -> str:
        """Return what those who may not act are told."""
        return "only administrators may do this; run it from a terminal that was opened as administrator"

    def make_folder(self, folder: Path, *, private: bool) -> Flaw | None:
        """Make a folder that only SYSTEM and Administrators can change, or tighten the one that is there.

        ``private``: others cannot read it either. A folder of somebody else is left alone and returned as a flaw.
        """
        new = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = parse_sddl(describe(self._api, folder))
        if not new and not descriptor.owner_is_trusted:
            return _foreign(folder, descriptor.owner)
        # All at once, and only where needed: Windows carries it into everything that lies below.
        lax = descriptor.others_write or (private and descriptor.others_read)
        if new or lax or not descriptor.protected:
            protect(self._api, folder, PRIVATE if private else PUBLIC)
        return None

    def flaw(self, path: Path, *, secret: bool) -> Flaw | None:
        """Return why a file or folder cannot be trusted: others own it, can write it, or read it if ``secret``."""
        descriptor = parse_sddl(describe(self._api, path))
        if not descriptor.owner_is_trusted:
            return _foreign(path, descriptor.owner)
        mended = f'icacls "{path}" /inheritance:r /grant:r *S-1-5-18:F *S-1-5-32-544:F'
        if descriptor.others_write:
            return Flaw(f"{path} can be written by others ({', '.join(descriptor.others_write)})", mended)
        if secret and descriptor.others_read:
            found = f"{path} holds a secret and can be read by others ({', '.join(descriptor.others_read)})"
            return Flaw(found, mended)
        return None


def _foreign(path: Path, owner: str) -> Flaw:
    found = f"{path} belongs to {owner or 'nobody'}, who could change what is installed; expected Administrators"
    return Flaw(found, f'icacls "{path}" /setowner *S-1-5-32-544')


def describe(api: Win32, path: Path) -> str:
    """Return a path's owner and access list as text (SDDL); raise ``OSError``."""
    with _security_of(api, path) as (_, _, memory):
        text = c_void_p()
        convert = api.advapi32.ConvertSecurityDescriptorToStringSecurityDescriptorW
        if not convert(memory, _REVISION, _OWNER | _DACL, pointer(text), None):
            raise api.failure("ConvertSecurityDescriptorToStringSecurityDescriptorW")
        try:
            return ctypes.wstring_at(text.value or 0)
        finally:
            api.kernel32.LocalFree(text)


def copy_access(api: Win32, source: Path, target: Path) -> None:
    """Give a path the owner and the access list of another; raise ``OSError``."""
    with _security_of(api, source) as (owner, acl, memory):
        control, revision = c_uint16(), c_uint32()
        if not api.advapi32.GetSecurityDescriptorControl(memory, pointer(control), pointer(revision)):
            raise api.failure("GetSecurityDescriptorControl")
        what = _DACL | (_PROTECTED_DACL if control.value & _DACL_IS_PROTECTED else _UNPROTECTED_DACL)
        set_info = api.advapi32.SetNamedSecurityInfoW
        number = set_info(str(target), _FILE_OBJECT, what | _OWNER, owner, None, acl, None)
        if number == _ERROR_INVALID_OWNER:
            # Only who may restore backups may give files away; who may do what with it matters more.
            number = set_info(str(target), _FILE_OBJECT, what, None, None, acl, None)
        if number:
            raise file_error("SetNamedSecurityInfoW", number, target)


@contextmanager
def _security_of(api: Win32, path: Path) -> Iterator[tuple[c_void_p, c_void_p, c_void_p]]:
    """Give a path's owner, access list, and the descriptor that holds the two."""
    owner, acl, memory = c_void_p(), c_void_p(), c_void_p()
    number = api.advapi32.GetNamedSecurityInfoW(
        str(path), _FILE_OBJECT, _OWNER | _DACL, pointer(owner), None, pointer(acl), None, pointer(memory)
    )
    if number:
        raise file_error("GetNamedSecurityInfoW", number, path)
    try:
        yield owner, acl, memory
    finally:
        api.kernel32.LocalFree(memory)


def protect(api: Win32, folder: Path, descriptor: str = PRIVATE) -> None:
    """Set a folder's owner and access list as a whole, whatever was there; raise ``WindowsFailure``.

    Protected: what the folder above grants, to all users say, is not inherited. What lies in the folder inherits.
    """
    with descriptor_in_memory(api, descriptor) as memory:
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
def descriptor_in_memory(api: Win32, text: str) -> Iterator[c_void_p]:
    """Give a security descriptor that is written as text; raise ``WindowsFailure``."""
    memory = c_void_p()
    convert = api.advapi32.ConvertStringSecurityDescriptorToSecurityDescriptorW
    if not convert(text, _REVISION, pointer(memory), None):
        raise api.failure("ConvertStringSecurityDescriptorToSecurityDescriptorW")
    try:
        yield memory
    finally:
        api.kernel32.LocalFree(memory)
