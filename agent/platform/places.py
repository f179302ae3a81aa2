"""Where the agent's files lie on each system. Standard library only: the daemon lives on this (design §11)."""

from __future__ import annotations

import sys
from collections.abc import Mapping


class Places:
    """Folders below the root folder; a whole path stands for itself."""

    # Not a dataclass: that module alone costs the daemon more than everything in here.
    __slots__ = ("config", "install", "state")

    def __init__(self, config: str, state: str, install: str) -> None:
        self.config = config
        self.state = state
        self.install = install


POSIX = Places("etc/commandit", "var/lib/commandit", "opt/commandit")
WINDOWS = Places("ProgramData/commandit", "ProgramData/commandit/state", "Program Files/commandit")
"""Of an endpoint in a folder. The configuration's folder lies around the state: anybody may make folders in
``ProgramData``, so all of ours lie in one that is protected."""


def places_of(environment: Mapping[str, str], *, whole_machine: bool) -> Places:
    """Return the places of this system; those of a whole Windows are where ``environment`` says."""
    if sys.platform == "win32":
        return places_of_windows(environment) if whole_machine else WINDOWS
    return POSIX


def places_of_windows(environment: Mapping[str, str]) -> Places:
    """Return the places of a whole Windows."""
    drive = environment.get("SystemDrive", "C:")
    data = environment.get("ProgramData", rf"{drive}\ProgramData")
    # A 32-bit process sees another folder under the plain name.
    programs = environment.get("ProgramW6432") or environment.get("ProgramFiles", rf"{drive}\Program Files")
    return Places(f"{data}/commandit", f"{data}/commandit/state", f"{programs}/commandit")


def program_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return what programs of packages get: nothing of the caller's but what their system cannot do without."""
    if sys.platform == "win32":
        return environment_of_windows(environment)
    return {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "HOME": "/"}


def environment_of_windows(environment: Mapping[str, str]) -> dict[str, str]:
    """Return what no program of Windows can do without."""
    root = environment.get("SystemRoot", r"C:\Windows")
    fixed = {
        "SystemRoot": root,
        "windir": root,
        "ComSpec": rf"{root}\System32\cmd.exe",
        "PATH": rf"{root}\System32;{root};{root}\System32\Wbem;{root}\System32\WindowsPowerShell\v1.0",
        "PATHEXT": ".COM;.EXE;.BAT;.CMD",
        "TEMP": rf"{root}\Temp",
        "TMP": rf"{root}\Temp",
    }
    kept = (
        "SystemDrive", "ProgramData", "ProgramFiles", "ProgramFiles(x86)", "ProgramW6432", "CommonProgramFiles",
        "PUBLIC", "NUMBER_OF_PROCESSORS", "PROCESSOR_ARCHITECTURE", "OS",
    )  # fmt: skip
    return fixed | {name: environment[name] for name in kept if name in environment}
