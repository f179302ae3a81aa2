"""What is wrong with the server itself now: in the log when it appears and clears, in ``/readyz``, and as a metric.

A part that can be unwell gives a function that returns a sentence, or ``None`` when it is well. Nothing else has to be
remembered or reported by it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeAlias

Symptom: TypeAlias = Callable[[], str | None]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Condition:
    """Something that is wrong; ``code`` is stable, the message is for operators and may name paths and hosts."""

    code: str
    message: str
    since: datetime


@dataclass(slots=True)
class Conditions:
    """Asks the server's parts how they are."""

    symptoms: dict[str, Symptom] = field(default_factory=dict)
    """Code → what says whether it is so."""
    elsewhere: Callable[[], tuple[Condition, ...]] = tuple
    """What other processes of this server found."""
    _known: dict[str, Condition] = field(default_factory=dict)
    _one_at_a_time: threading.Lock = field(default_factory=threading.Lock)

    def watch(self, code: str, symptom: Symptom) -> None:
        """Ask this too, from now on."""
        self.symptoms[code] = symptom

    @property
    def known(self) -> tuple[Condition, ...]:
        """What the last look found here."""
        return tuple(self._known.values())

    def look(self, now: datetime) -> tuple[Condition, ...]:
        """Return what is wrong now, by code; log what is new and what is over. From any thread."""
        with self._one_at_a_time:
            return self._look(now)

    def _look(self, now: datetime) -> tuple[Condition, ...]:
        found: dict[str, Condition] = {}
        for code, symptom in sorted(self.symptoms.items()):
            before = self._known.get(code)
            message = _said(symptom, code, known=before is not None)
            if message is None:
                continue
            if before is None:
                _log.error("%s: %s", code, message, extra={"condition": code})
            found[code] = Condition(code, message, now if before is None else before.since)
        for code in self._known.keys() - found.keys():
            _log.info("%s is over", code, extra={"condition": code})
        self._known = found
        others = [item for item in self.elsewhere() if item.code not in found]
        return (*found.values(), *others)


def _said(symptom: Symptom, code: str, *, known: bool) -> str | None:
    """Ask one part; a fault in the asking is said as well, and ends neither the server nor the other questions."""
    try:
        return symptom()
    except Exception as error:  # noqa: BLE001 -- see above
        if not known:
            _log.exception("whether %s is so could not be found out", code)
        return f"whether it is so could not be found out: {type(error).__name__}: {error}"
