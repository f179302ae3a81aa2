"""The text of a component's systemd unit: what the signed package ships, and what the agent adds (L43)."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from agent.codes import Code
from agent.errors import AgentError
from agent.platform.files import FILES
from agent.platform.spoken import resolve
from agent.ports import Unit

SHIPPED_FOLDER = "systemd"
"""Folder of the install folder that holds ``<service.name>.service``."""
SUFFIX = ".service"
MAX_BYTES = 64 * 1024
RESERVED = "commandit-updater"
"""Names that begin so are the agent's own units."""
_HEADER = "# Written by commandit-updater for the component {component}. Own settings: a drop-in beside it.\n"
_GENERATED = """\
[Unit]
Description=CommandIT component {component}
After=network.target

[Service]
Type=exec
WorkingDirectory={folder}
Environment=COMMANDIT_COMPONENT={component}
ExecStart={command}
Restart=always
RestartSec=5

[Install]
WantedBy=multi-user.target
"""
_ADDED = """
# What the agent adds. After a power cut in the middle of an update the component waits for the agent's recovery:
# it starts when no update is under way, or when the agent has started it in this boot.
[Unit]
ConditionPathExists=|!{journal}
ConditionPathExists=|{marker}
[Service]
TimeoutStopSec={stop_ms}ms
SendSIGKILL=yes
"""


def unit_name(unit: Unit) -> str:
    """Return the file name of a component's unit; raise ``AgentError(START_FAILED)`` for a name of the agent's own."""
    name = (unit.service.name or f"commandit-{unit.component}").removesuffix(SUFFIX)
    if name.startswith(RESERVED):
        raise _failed(unit, f"the name {name} is reserved for the agent; pack it with another service.name")
    return name + SUFFIX


def unit_text(unit: Unit, journal: Path, marker: Path) -> bytes:
    """Return the unit file to install, with a first line that says whose it is; raise ``AgentError(START_FAILED)``.

    It is the package's ``systemd/<name>.service``; without that, one is made from ``service.command``.
    """
    shipped = _shipped(unit)
    if shipped is None:
        if not unit.service.command:
            raise _failed(
                unit, f"{unit.folder / SHIPPED_FOLDER / unit_name(unit)} is missing; expected the unit in the package"
            )
        shipped = _generated(unit)
    # 0 would mean "for ever" to systemd.
    stop_ms = max(1, round(unit.service.stop_timeout_seconds * 1000))
    added = _ADDED.format(journal=_escaped(str(journal)), marker=_escaped(str(marker)), stop_ms=stop_ms)
    # Of settings that stand twice the last one counts. The empty line ends a continued one.
    return f"{header(unit.component)}{shipped}\n{added}".encode()


def header(component: str) -> str:
    """Return the first line of each unit file of a component."""
    return _HEADER.format(component=component)


def written_for(path: Path, component: str) -> bool:
    """Whether a unit file is one that we wrote for this component; raise ``OSError``."""
    if not stat.S_ISREG(path.lstat().st_mode):
        return False
    expected = header(component).encode()
    with path.open("rb") as file:
        return file.read(len(expected)) == expected


def is_components(path: Path) -> bool:
    """Whether a unit file is one that we wrote, for whatever component; raise ``OSError``."""
    if not stat.S_ISREG(path.lstat().st_mode):
        return False
    begin, _, end = (part.encode() for part in _HEADER.partition("{component}"))
    with path.open("rb") as file:
        line = file.readline(MAX_BYTES)
    return line.startswith(begin) and line.endswith(end)


def _shipped(unit: Unit) -> str | None:
    path = unit.folder / SHIPPED_FOLDER / unit_name(unit)
    try:
        descriptor = FILES.open(path, os.O_RDONLY)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _failed(unit, f"cannot read {path}: {error.strerror}; expected a regular file") from error
    with os.fdopen(descriptor, "rb") as file:
        data = file.read(MAX_BYTES + 1)
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = "\0"
    if len(data) > MAX_BYTES or "\0" in text:
        raise _failed(unit, f"{path} is no unit file; expected UTF-8 text of at most {MAX_BYTES} bytes")
    return text


def _generated(unit: Unit) -> str:
    return _GENERATED.format(
        component=unit.component,
        folder=_escaped(str(unit.folder)),
        command=" ".join(quoted(word) for word in resolve(unit.service.command, unit.folder)),
    )


def quoted(word: str) -> str:
    """Return a word of a command line as systemd reads it back unchanged (systemd.service(5))."""
    escaped = "".join(
        char if char.isprintable() and char not in '"\\' else f"\\{char}" if char in '"\\' else _octal(char)
        for char in word
    )
    return f'"{_escaped(escaped).replace("$", "$$")}"'


def _octal(char: str) -> str:
    return "".join(f"\\{byte:03o}" for byte in char.encode(errors="surrogateescape"))


def _escaped(text: str) -> str:
    return text.replace("%", "%%")


def _failed(unit: Unit, why: str) -> AgentError:
    return AgentError(Code.START_FAILED, f"{unit.component}: {why}")
