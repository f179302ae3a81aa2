"""The newest check-in of each device that waits for the database, in bounded memory (design §7)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

import msgspec

from repo_server.core.channels import AssignedChannel
from repo_server.core.wire import CheckRequest
from repo_server.store.counters import Counters

AS_OBJECTS = 20_000
"""Devices whose check-ins are kept as they came; beyond that, which means that the database is away, packed."""
MOST = 100_000
"""Devices that are kept; beyond that the longest-waiting one is dropped."""
MOST_BYTES = 128 * 1024 * 1024
"""Of the packed ones: what a device says of itself is up to 64 KiB, and many times as much in memory."""


class CheckIn(msgspec.Struct, frozen=True, gc=False):
    """What a device said, and the channel that it was answered for."""

    previous_ids: tuple[str, ...]
    request: CheckRequest
    channel: AssignedChannel
    at: datetime


@dataclass(slots=True)
class Backlog:
    """Check-ins by device, the longest-waiting first."""

    counters: Counters
    """Told of those that are dropped."""
    _waiting: dict[str, CheckIn | bytes] = field(default_factory=dict)
    _bytes: int = 0
    _encoder: msgspec.json.Encoder = field(default_factory=msgspec.json.Encoder)
    _decoder: msgspec.json.Decoder[CheckIn] = field(default_factory=lambda: msgspec.json.Decoder(CheckIn))

    def put(self, device_id: str, item: CheckIn) -> None:
        """Take a check-in; an older one of the same device makes place."""
        waiting = self._waiting
        before = waiting.get(device_id)
        if before is not None:
            if type(before) is bytes:
                self._bytes -= len(before)
                before = self._decoder.decode(before)
            if before.previous_ids and not item.previous_ids:  # type: ignore[union-attr]  # unpacked above
                item = msgspec.structs.replace(item, previous_ids=before.previous_ids)  # type: ignore[union-attr]
        if len(waiting) < AS_OBJECTS:
            waiting[device_id] = item
        else:
            self._pack(device_id, item)

    def take(self, most: int) -> dict[str, CheckIn]:
        """Take out the longest-waiting ones."""
        ids = [device_id for device_id, _ in zip(self._waiting, range(most), strict=False)]
        return {device_id: self._taken(device_id) for device_id in ids}

    def give_back(self, batch: Mapping[str, CheckIn]) -> None:
        """Put what was taken back in front; what came in meanwhile is newer and stays."""
        newer, self._waiting, self._bytes = self._waiting, {}, 0
        for device_id, item in batch.items():
            if device_id not in newer:
                self.put(device_id, item)
        for device_id, either in newer.items():
            self._waiting[device_id] = either
            self._bytes += len(either) if type(either) is bytes else 0
        self._make_room()

    def __len__(self) -> int:
        return len(self._waiting)

    def _pack(self, device_id: str, item: CheckIn) -> None:
        try:
            # A copy: what the encoder returns holds on to half as much again as it needs.
            packed = bytes(memoryview(self._encoder.encode(item)))
        except (msgspec.MsgspecError, OverflowError, RecursionError, TypeError, ValueError):
            # A number or a depth that was read and cannot be written again: nothing that an agent says.
            self._waiting.pop(device_id, None)
            self.counters.check_ins_dropped += 1
            return
        self._waiting[device_id] = packed
        self._bytes += len(packed)
        self._make_room()

    def _make_room(self) -> None:
        while self._waiting and (len(self._waiting) > MOST or self._bytes > MOST_BYTES):
            self._taken(next(iter(self._waiting)))
            self.counters.check_ins_dropped += 1

    def _taken(self, device_id: str) -> CheckIn:
        found = self._waiting.pop(device_id)
        if isinstance(found, CheckIn):
            return found
        self._bytes -= len(found)
        return self._decoder.decode(found)
