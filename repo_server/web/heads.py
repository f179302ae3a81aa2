"""Heads of requests that were taken apart before: a fleet's agents send the same head again and again (design §9).

Only what the parser has accepted is remembered, byte for byte, and only for requests that were answered well. So the
same bytes at the beginning of a message mean the same again, and need no parser.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

MOST = 4096
LONGEST = 2048
"""Bytes of a head worth remembering; together at most 8 MiB."""
END = b"\r\n\r\n"


@dataclass(slots=True, eq=False)
class Head:
    """A request's head. The same object stands for every request whose head has the same bytes."""

    headers: list[tuple[bytes, bytes]]
    single: dict[bytes, bytes | None]
    """Each header's value, ``None`` for one that stands there twice."""
    length: int
    """Of the body, in bytes."""
    derived: Any = None
    """What the application has found out from the head alone."""


@dataclass(slots=True)
class Heads:
    """Remembers heads in bounded memory."""

    _known: dict[bytes, Head] = field(default_factory=dict)

    def of(self, read: bytes) -> tuple[Head, int] | None:
        """Return the head of one whole request, and where its body begins, if the head is known."""
        end = read.find(END) + len(END)
        head = self._known.get(read[:end])
        return None if head is None or len(read) != end + head.length else (head, end)

    def remember(self, read: bytes, head: Head) -> None:
        """Remember the head of a request that this read holds, if it holds that and nothing else."""
        end = read.find(END) + len(END)
        if len(read) != end + head.length or end > LONGEST:
            return
        if len(self._known) >= MOST:
            # Many clients behind proxies that tell them apart, say; starting again costs a parse each.
            self._known.clear()
        self._known[read[:end]] = head

    def __len__(self) -> int:
        return len(self._known)


def without_upgrade(method: bytes, target: bytes, version: str, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Write a request's head without its wish for another protocol (RFC 9110, 7.8)."""
    head = [b"%b %b HTTP/%b\r\n" % (method, target, version.encode())]
    for name, value in headers:
        if name == b"connection":
            options = (option.strip().lower() for option in value.split(b","))
            head.append(b"connection: %b\r\n" % b", ".join(option for option in options if option != b"upgrade"))
        elif name != b"upgrade":
            head.append(b"%b: %b\r\n" % (name, value))
    return b"".join((*head, b"\r\n"))
