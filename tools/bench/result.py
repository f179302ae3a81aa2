"""What a benchmark says: a figure, its baseline in the same run, and the budget for their ratio."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Result:
    """One line of the report; ``measured`` and ``baseline`` are in ``unit``."""

    name: str
    measured: float
    baseline: float
    unit: str
    against: str
    at_least: float | None = None
    at_most: float | None = None

    @property
    def ratio(self) -> float:
        """Measured over baseline."""
        return self.measured / self.baseline

    @property
    def met(self) -> bool:
        """Whether the ratio is within the budget."""
        low = self.at_least is None or self.ratio >= self.at_least
        return low and (self.at_most is None or self.ratio <= self.at_most)

    def line(self) -> str:
        """Return the line to print."""
        bounds = [f">= {self.at_least}"] if self.at_least is not None else []
        bounds += [f"<= {self.at_most}"] if self.at_most is not None else []
        verdict = "" if not bounds else f"  budget {' and '.join(bounds)}: {'met' if self.met else 'NOT MET'}"
        figures = f"{self.measured:,.3g} {self.unit} against {self.baseline:,.3g} ({self.against})"
        return f"{self.name:32} ratio {self.ratio:6.2f}  {figures}{verdict}"
