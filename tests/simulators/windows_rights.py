"""Access control of Windows: who owns a file, and who may do what with it, as texts (SDDL)."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Any

from agent.platform import win32

OPEN = "O:BAD:AI(A;OICIID;FA;;;SY)(A;OICIID;FA;;;BA)(A;OICIID;0x1200a9;;;BU)(A;CIID;DCLCRPCR;;;BU)"
"""What a folder in ``ProgramData`` inherits."""


class RightsOfWindows:
    """The functions; a part of ``WindowsSimulator``, whose state it works on."""

    refusing_access: int
    security: dict[str, tuple[str, int]]
    _memory: dict[int, Any]

    def ConvertStringSecurityDescriptorToSecurityDescriptorW(  # noqa: N802
        self, text: str, revision: int, out: Any, size: Any
    ) -> int:
        assert revision == 1
        assert not size
        buffer = ctypes.create_unicode_buffer(text)
        self._memory[ctypes.addressof(buffer)] = buffer
        out.contents.value = ctypes.addressof(buffer)
        return 1

    def GetSecurityDescriptorDacl(self, descriptor: int, present: Any, acl: Any, defaulted: Any) -> int:  # noqa: N802
        present.contents.value, defaulted.contents.value = 1, 0
        acl.contents.value = descriptor
        return 1

    def GetSecurityDescriptorOwner(self, descriptor: int, owner: Any, defaulted: Any) -> int:  # noqa: N802
        owner.contents.value, defaulted.contents.value = descriptor, 0
        return 1

    def GetSecurityDescriptorControl(self, descriptor: int, control: Any, revision: Any) -> int:  # noqa: N802
        control.contents.value = 0x1004 if "D:P" in self._memory[descriptor].value else 0x4
        revision.contents.value = 1
        return 1

    def ConvertSecurityDescriptorToStringSecurityDescriptorW(  # noqa: N802
        self, descriptor: int, revision: int, what: int, out: Any, size: Any
    ) -> int:
        assert (revision, what, size) == (1, 5, None)
        return self.ConvertStringSecurityDescriptorToSecurityDescriptorW(self._memory[descriptor].value, 1, out, None)

    def GetNamedSecurityInfoW(  # noqa: N802
        self, name: str, kind: int, what: int, owner: Any, group: Any, acl: Any, sacl: Any, descriptor: Any
    ) -> int:
        assert (kind, what, group, sacl) == (1, 5, None, None)
        if not os.path.lexists(name):
            return win32.ERROR_FILE_NOT_FOUND
        self.ConvertStringSecurityDescriptorToSecurityDescriptorW(self._rights_of(name), 1, descriptor, None)
        owner.contents.value = acl.contents.value = descriptor.contents.value
        return 0

    def SetNamedSecurityInfoW(  # noqa: N802
        self, name: str, kind: int, what: int, owner: int | None, group: int | None, acl: int, sacl: int | None
    ) -> int:
        assert (kind, group, sacl) == (1, None, None)
        assert (owner == acl) == bool(what & 1)
        if self.refusing_access:
            return self.refusing_access
        self.security[name] = (self._memory[acl].value, what)
        return 0

    def _rights_of(self, name: str) -> str:
        """Return what was set, or what is inherited: from our own folders, or from a ProgramData that all may fill."""
        if name in self.security:
            return self.security[name][0]
        above = next((folder for folder in map(str, Path(name).parents) if folder in self.security), None)
        return OPEN if above is None else self.security[above][0].replace("D:P", "D:AI").replace("OICI;", "OICIID;")
