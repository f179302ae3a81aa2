"""Messages over a socket between the main process and a worker: length, then content."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass

from repo_server.workers.messages import Message, decode, encode

_LENGTH_BYTES = 8


@dataclass(slots=True)
class Channel:
    """One end of it."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @classmethod
    async def over(cls, end: socket.socket) -> Channel:
        """Take over one end of a pair of sockets."""
        end.setblocking(False)
        return cls(*await asyncio.open_unix_connection(sock=end))

    def send(self, message: Message) -> None:
        """Send soon; to one who is gone, nothing. Never blocks: a peer that does not read is killed before long."""
        self.send_encoded(encode(message))

    def send_encoded(self, data: bytes) -> None:
        """Send what was encoded once for many."""
        if not self.writer.is_closing():
            self.writer.write(len(data).to_bytes(_LENGTH_BYTES) + data)

    async def receive(self) -> Message | None:
        """Return the next message, ``None`` when the other end is gone."""
        try:
            length = int.from_bytes(await self.reader.readexactly(_LENGTH_BYTES))
            return decode(await self.reader.readexactly(length))
        except (asyncio.IncompleteReadError, OSError):
            return None

    async def __aiter__(self) -> AsyncIterator[Message]:
        while (message := await self.receive()) is not None:
            yield message

    def close(self) -> None:
        """Let the other end know that nothing comes any more."""
        self.writer.close()
