"""Scans trees in tests: a scanner with its own clock, and short ways to say what it found."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from repo_server.core.model import Release
from repo_server.tree.live import ScanResult
from repo_server.tree.scan import Scanner, ScanOptions

LATER = timedelta(hours=1)
"""Long enough for everything to have come to rest."""


def soon() -> datetime:
    """Return an instant at which every file that was ever written rests, whatever the clock says."""
    return datetime.now(UTC) + LATER


@dataclass
class Scans:
    """A scanner on a tree, and its last result. Its clock runs an hour ahead: nothing is arriving any more."""

    root: Path
    state: Path | None = None
    options: ScanOptions = field(default_factory=ScanOptions)

    def __post_init__(self) -> None:
        self.scanner = Scanner(self.root, self.state, self.options)
        self.result: ScanResult | None = None

    def full(self, now: datetime | None = None) -> ScanResult:
        """Look at everything."""
        self.result = self.scanner.full(now or soon())
        return self.result

    def update(self, *changed: str | Path, now: datetime | None = None) -> ScanResult:
        """Look at what changed."""
        names = [str(path.relative_to(self.root)) if isinstance(path, Path) else path for path in changed]
        self.result = self.scanner.update(names, now or soon())
        return self.result


def full(root: Path, state: Path | None = None, now: datetime | None = None) -> ScanResult:
    """Let a new scanner look at a tree once."""
    scanner = Scanner(root, state)
    try:
        return scanner.full(now or soon())
    finally:
        scanner.close()


def offered(result: ScanResult) -> dict[str, Release]:
    """Return path → release of what may be offered."""
    return {release.path: release for release in result.catalogue if release.block is None}


def codes(result: ScanResult) -> dict[str, str]:
    """Return path → code of what is not offered; several codes joined by a blank."""
    found: dict[str, str] = {}
    for problem in result.problems:
        found[problem.path] = f"{found[problem.path]} {problem.code}" if problem.path in found else problem.code
    return found
