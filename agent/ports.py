"""What the engine needs from the system it runs on. Each port says what may be repeated and what it raises."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from repo_server.core.package import Service


@dataclass(frozen=True, slots=True)
class Unit:
    """A component's program: what a service manager starts and stops."""

    component: str
    folder: Path
    """The install folder."""
    service: Service


@dataclass(frozen=True, slots=True)
class Finished:
    """How a program that was run to its end came out."""

    exit_code: int | None
    """``None``: it was stopped because its time was over."""
    output: str
    """The last lines of what it wrote."""


class ServiceManager(Protocol):
    """Starts and stops components. All methods are idempotent and may be repeated after a crash."""

    def start(self, unit: Unit) -> None:
        """Start; a running one stays as it is. Raise ``AgentError(START_FAILED)``."""

    def stop(self, unit: Unit) -> None:
        """Ask it to stop, wait ``stop_timeout_seconds``, then force it; return only when nothing of it runs.

        It also finds what a killed agent had started. Raise ``AgentError(STOP_FAILED)`` (FR-CMP-001).
        """

    def remove(self, unit: Unit) -> None:
        """Stop it, and take out all that the system knows of it: the component is uninstalled.

        Raise ``AgentError(STOP_FAILED)``.
        """

    def running(self, unit: Unit) -> bool:
        """Whether its program runs now. Never raises for a component that was never started."""

    def wanted(self, component: str) -> bool:
        """Whether it was started and never stopped since, be it running or not."""

    def last_output(self, component: str) -> str:
        """Return the last lines that it wrote, "" if there are none."""


class Programs(Protocol):
    """Runs hooks and health commands to their end."""

    def run(self, command: Sequence[str], folder: Path, facts: dict[str, str], timeout: float) -> Finished:
        """Run with the working directory ``folder`` and ``facts`` in the environment; ``timeout`` in seconds.

        Not idempotent. Leaves nothing behind when the time is over. Raises ``OSError`` if it cannot be started.
        """


class Sessions(Protocol):
    """Knows who works at this machine, as well as the system tells."""

    def active(self) -> tuple[str, ...]:
        """Return a name for each active user session. Never raises: what cannot be known is none."""


class Identity(Protocol):
    """Knows which machine this is, as well as hardware and system tell."""

    def says(self) -> tuple[str, ...]:
        """Return what stays the same on this machine and is another on a copy of it. Never raises: it may be none."""


class Clock(Protocol):
    """Time. ``monotonic`` and ``sleep`` in seconds."""

    def now(self) -> datetime:
        """Return the wall clock's time, in UTC."""

    def monotonic(self) -> float:
        """Return a time that only grows."""

    def sleep(self, seconds: float) -> None:
        """Wait."""


class Disk(Protocol):
    """What the file system can do beyond ``os``."""

    def free_bytes(self, folder: Path) -> int:
        """Return how many bytes can be written on a folder's volume. Raises ``OSError``."""

    def exchange(self, one: Path, other: Path) -> bool:
        """Exchange two folders in one atomic call; return ``False`` where the file system cannot.

        Not idempotent: twice is not at all. Raises ``OSError``.
        """

    def remove_at_boot(self, path: Path) -> bool:
        """Have the system remove what cannot be removed now at the next boot; ``False`` where it does no such thing.

        Idempotent. Raises ``OSError``.
        """

    def rename(self, one: Path, other: Path) -> None:
        """Rename a folder to a name that is free, after waiting for whoever holds a file in it. Raises ``OSError``."""
