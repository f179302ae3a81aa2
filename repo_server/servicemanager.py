"""What systemd hands to a service, and what it is told: sockets, readiness, the watchdog (sd_listen_fds, sd_notify)."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import MutableMapping
from dataclasses import dataclass

FIRST_DESCRIPTOR = 3
_MICROSECONDS = 1_000_000


@dataclass(frozen=True, slots=True)
class ServiceManager:
    """The service manager that started us, as its environment variables tell; it need not be one."""

    descriptors: int = 0
    """Sockets that it handed over, from ``FIRST_DESCRIPTOR`` on."""
    address: str | None = None
    """Where it wants to be told."""
    watchdog_seconds: float | None = None
    """How often it must hear from us; ``None``: it does not care."""

    @classmethod
    def of(cls, environment: MutableMapping[str, str], pid: int) -> ServiceManager:
        """Take the variables out of the environment, so that children do not think that they are meant."""
        taken = {
            name: environment.pop(name, "")
            for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC")
        }
        ours = taken["LISTEN_PID"] == str(pid) and taken["LISTEN_FDS"].isdecimal()
        watched = taken["WATCHDOG_PID"] in {"", str(pid)} and taken["WATCHDOG_USEC"].isdecimal()
        return cls(
            int(taken["LISTEN_FDS"]) if ours else 0,
            taken["NOTIFY_SOCKET"] or None,
            int(taken["WATCHDOG_USEC"]) / _MICROSECONDS if watched else None,
        )

    def sockets(self) -> list[socket.socket]:
        """Return what was handed over; children do not get it by themselves."""
        found = []
        for descriptor in range(FIRST_DESCRIPTOR, FIRST_DESCRIPTOR + self.descriptors):
            os.set_inheritable(descriptor, False)
            found.append(socket.socket(fileno=descriptor))
        return found

    def ready(self) -> None:
        """Say that agents are served."""
        self._say("READY=1")

    def starting(self, seconds: float) -> None:
        """Say that starting takes so much longer: digests of a large tree."""
        self._say(f"EXTEND_TIMEOUT_USEC={int(seconds * _MICROSECONDS)}")

    def stopping(self) -> None:
        """Say that no more connections are taken."""
        self._say("STOPPING=1")

    def alive(self) -> None:
        """Keep the watchdog quiet."""
        self._say("WATCHDOG=1")

    def _say(self, state: str) -> None:
        if self.address is None:
            return
        address = f"\0{self.address[1:]}" if self.address.startswith("@") else self.address
        # Nobody there to hear it is not our trouble; a watchdog that hears nothing acts.
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as end,
        ):
            end.sendto(state.encode(), address)
