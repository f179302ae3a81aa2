"""What the hardware and the system say of which machine this is: the port ``Identity``.

Only what stays over reboots, new kernels and changes of the network, and what a copy of the disk does not take along:
hypervisors and clouds give each virtual machine its own DMI UUID. The id of the system's installation is shared by
some copies, and tells those that made a new one. Network addresses are left out: they come and go with docks,
containers and tunnels, and are random on some systems.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

_EVERYBODYS = ("proc/device-tree/serial-number", "etc/machine-id")
_ROOTS = ("sys/class/dmi/id/product_uuid", "sys/class/dmi/id/board_serial")
"""Others may not read these: who runs an endpoint in a folder may be anybody, and must always say the same."""
_UNSAID = frozenset({"", "uninitialized"})
"""The second is what systemd writes during a first boot."""
_MOST_BYTES = 256
_REGISTRY = (
    (r"SYSTEM\HardwareConfig", "LastConfig"),
    (r"SOFTWARE\Microsoft\Cryptography", "MachineGuid"),
)
"""The DMI UUID of this hardware, and the id of this installation."""
_UUID_BYTES = 16


class NoIdentity:
    """A machine that says nothing."""

    def says(self) -> tuple[str, ...]:
        """Return nothing."""
        return ()


class LinuxIdentity:
    """Reads what firmware and systemd know."""

    def __init__(self, root: Path, *, as_root: bool) -> None:
        self._root = root
        self._names = (*_ROOTS, *_EVERYBODYS) if as_root else _EVERYBODYS

    def says(self) -> tuple[str, ...]:
        """Return ``name=text`` for each that is there."""
        return tuple(self._found())

    def _found(self) -> Iterator[str]:
        for name in self._names:
            with suppress(OSError), (self._root / name).open("rb") as file:
                text = file.read(_MOST_BYTES).decode(errors="replace").strip(" \n\0")
                if text not in _UNSAID:
                    yield f"{name}={text}"


class MacIdentity:
    """Asks the kernel for the hardware's UUID."""

    def __init__(self, host_uuid: Callable[[], bytes]) -> None:
        self._host_uuid = host_uuid

    def says(self) -> tuple[str, ...]:
        """Return the UUID."""
        with suppress(OSError):
            return (f"host_uuid={self._host_uuid().hex()}",)
        return ()


class WindowsIdentity:
    """Asks the registry."""

    def __init__(self, registry: Callable[[str, str], str]) -> None:
        self._registry = registry

    def says(self) -> tuple[str, ...]:
        """Return ``name=text`` for each that is there."""
        return tuple(self._found())

    def _found(self) -> Iterator[str]:
        for key, name in _REGISTRY:
            with suppress(OSError):
                yield f"{name}={self._registry(key, name)}"


def gethostuuid() -> bytes:
    """Return the UUID of this Mac (``gethostuuid(2)``); raise ``OSError``."""
    library = ctypes.CDLL(None, use_errno=True)
    if not hasattr(library, "gethostuuid"):
        raise OSError(f"this is {sys.platform}, which has no gethostuuid; expected macOS")
    found, no_wait = (ctypes.c_ubyte * _UUID_BYTES)(), (ctypes.c_long * 2)(0, 0)
    if library.gethostuuid(found, no_wait) != 0:
        raise OSError(ctypes.get_errno(), "gethostuuid fails")
    return bytes(found)


def registry_text(key: str, name: str) -> str:
    """Return a text below ``HKEY_LOCAL_MACHINE``, as 64-bit programs see it; raise ``OSError``."""
    if sys.platform == "win32":
        import winreg

        access = winreg.KEY_READ | winreg.KEY_WOW64_64KEY
        with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, key, 0, access) as opened:
            return str(winreg.QueryValueEx(opened, name)[0])
    raise OSError(f"this is {sys.platform}, which has no registry; expected Windows")
