"""Where the system itself starts ended programs again: on macOS and Windows. Standard library only."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path


class Unsupervised:
    """Stands for ``Supervision`` and leaves everything to launchd, or to the service manager of Windows."""

    __slots__ = ()

    def __init__(self, run_folder: Path, say: Callable[[str], None]) -> None:
        """Need nothing."""

    def look(self, now: float) -> None:
        """See nothing."""

    def take_due(self, now: float) -> str | None:  # noqa: ARG002 -- as Supervision has it
        """Return ``None``: nothing is ours to start."""
        return None

    def descriptors(self) -> Iterator[int]:
        """Yield nothing."""
        return iter(())

    def moments(self) -> Iterator[float | None]:
        """Yield nothing."""
        return iter(())
