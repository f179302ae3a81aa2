"""What a security descriptor of Windows, written as text, lets whom do (MS-DTYP 2.5.1, "SDDL")."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_TRUSTED = frozenset(
    {
        "SY",  # SYSTEM
        "BA",  # Administrators
        "LA",  # the administrator's own account
        "CO",  # a place holder for the owner, who is looked at by itself
        "OW",  # same
        "S-1-5-18",
        "S-1-5-32-544",
        "S-1-5-80-956008885-3418522649-1831038044-1853292631-2271478464",  # TrustedInstaller
    }
)
_RIGHTS = {
    "CC": 0x1, "DC": 0x2, "LC": 0x4, "SW": 0x8, "RP": 0x10, "WP": 0x20, "DT": 0x40, "LO": 0x80, "CR": 0x100,
    "SD": 0x1_0000, "RC": 0x2_0000, "WD": 0x4_0000, "WO": 0x8_0000, "GA": 0x1000_0000, "GX": 0x2000_0000,
    "GW": 0x4000_0000, "GR": 0x8000_0000, "FA": 0x1F_01FF, "FR": 0x12_0089, "FW": 0x12_0116, "FX": 0x12_00A0,
}  # fmt: skip
_READING = 0x1 | 0x1000_0000 | 0x8000_0000
_WRITING = 0x2 | 0x4 | 0x40 | 0x1_0000 | 0x4_0000 | 0x8_0000 | 0x1000_0000 | 0x4000_0000
"""Write and append data, remove what lies below, remove, change the list, take over, and all that includes these."""
_ALLOWING = frozenset({"A", "XA", "OA", "ZA"})
_EVERYBODY = ("everybody",)

_OWNER = re.compile(r"O:([A-Z]{2}|S-[-0-9A-Fa-fx]+)")
_LIST = re.compile(r"D:([A-Z_]*)")
_FIELDS = 6


@dataclass(frozen=True, slots=True)
class Descriptor:
    """What matters to the agent."""

    owner: str
    """Two letters or a SID, "" if there is none."""
    protected: bool
    """Whether nothing is inherited from above."""
    others_read: tuple[str, ...]
    """Who may read, beside SYSTEM and Administrators."""
    others_write: tuple[str, ...]

    @property
    def owner_is_trusted(self) -> bool:
        """Whether it belongs to SYSTEM, the Administrators or the installer of Windows."""
        return self.owner in _TRUSTED


def parse_sddl(text: str) -> Descriptor:
    """Read a descriptor; what is not understood counts as a right of everybody."""
    owner, found = _OWNER.search(text), _LIST.search(text)
    name = "" if owner is None else owner[1]
    if found is None or found[1].endswith("NO_ACCESS_CONTROL"):
        return Descriptor(name, False, _EVERYBODY, _EVERYBODY)
    reading, writing = [], []
    for entry in _entries(text[found.end() :]):
        if len(entry) < _FIELDS:
            return Descriptor(name, False, _EVERYBODY, _EVERYBODY)
        kind, flags, rights, _, _, trustee = entry[:_FIELDS]
        if kind not in _ALLOWING or trustee in _TRUSTED or "IO" in _pairs(flags):
            continue
        mask = _mask(rights)
        reading += [trustee] if mask & _READING else []
        writing += [trustee] if mask & _WRITING else []
    return Descriptor(name, "P" in re.sub("A[IR]", "", found[1]), tuple(reading), tuple(writing))


def _entries(text: str) -> Iterator[list[str]]:
    """Yield the fields of the entries that a list begins with; a condition may hold brackets of its own."""
    depth, begin = 0, 0
    for at, char in enumerate(text):
        if char == "(":
            depth += 1
            begin = at + 1 if depth == 1 else begin
        elif char == ")":
            depth -= 1
            if depth == 0:
                yield text[begin:at].split(";")
        elif depth == 0:
            # What follows is another list.
            return
    if depth:
        yield []


def _pairs(text: str) -> list[str]:
    return [text[at : at + 2] for at in range(0, len(text), 2)]


def _mask(rights: str) -> int:
    if rights.startswith("0x"):
        return int(rights, 16)
    if rights.isdigit():
        return int(rights)
    mask = 0
    for pair in _pairs(rights):
        mask |= _RIGHTS.get(pair, 0x1000_0000)
    return mask
