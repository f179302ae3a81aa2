"""The steps of an update, and what follows what: PURE (design §8, NFR-REL-002, NFR-REL-003).

A *sequence* updates components one after the other, and has a *position*: the index of the component it is at.
The step is in the journal before its action runs. After the action an event chooses the next step from
``TRANSITIONS``; after a crash ``RESUME`` does. Both say how the position moves. Everything before ``COMMIT`` goes
back when it fails or is interrupted; ``COMMIT`` and what follows goes on. Undoing looks at what is on the disk, so each
undoing step may run again.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple


class Step(enum.StrEnum):
    """Where a sequence is."""

    IDLE = "idle"
    DOWNLOAD = "download"
    """Fetch and verify the packages of all components."""
    STAGE = "stage"
    """Unpack all, and prepare each new folder beside the old one."""
    NEXT = "next"
    """Is there another component?"""
    PRE_HOOK = "pre_hook"
    STOP = "stop"
    EXCHANGE = "exchange"
    POST_HOOK = "post_hook"
    START = "start"
    HEALTH = "health"
    COMMIT = "commit"
    """Put a new agent in place and write the manifest: from here on the new set is the installed one."""
    CLEAN = "clean"
    """Remove the backups, write the final records."""
    UNDO = "undo"
    """Is there another component to take back?"""
    UNDO_STOP = "undo_stop"
    UNDO_EXCHANGE = "undo_exchange"
    UNDO_START = "undo_start"
    UNDO_HEALTH = "undo_health"
    CRITICAL = "critical"
    """Taking back failed: leave the component stopped and keep hands off it (FR-RBK-002)."""
    DISCARD = "discard"
    """Remove what was prepared, write the final records."""


class Event(enum.StrEnum):
    """What a step reports."""

    DONE = "done"
    """It did its work; for ``NEXT`` and ``UNDO``: there is no other component."""
    MORE = "more"
    """There is another component. A step that never reports it counts as failed if it does."""
    FAILED = "failed"


class Move(NamedTuple):
    """The next step, and how far the position moves."""

    step: Step
    shift: int = 0


_ABANDON = Move(Step.DISCARD)
_BACK = Move(Step.UNDO)
_BACK_BEFORE = Move(Step.UNDO, -1)
"""The component at this position is untouched: go back from the one before it."""
_GIVE_UP = Move(Step.CRITICAL)


def _row(done: Move, failed: Move, more: Move | None = None) -> Mapping[Event, Move]:
    return MappingProxyType({Event.DONE: done, Event.MORE: more or failed, Event.FAILED: failed})


TRANSITIONS: Mapping[Step, Mapping[Event, Move]] = MappingProxyType(
    {
        Step.IDLE: _row(Move(Step.DOWNLOAD), Move(Step.IDLE)),
        Step.DOWNLOAD: _row(Move(Step.STAGE), _ABANDON),
        Step.STAGE: _row(Move(Step.NEXT), _ABANDON),
        Step.NEXT: _row(Move(Step.COMMIT), _BACK_BEFORE, more=Move(Step.PRE_HOOK)),
        Step.PRE_HOOK: _row(Move(Step.STOP), _BACK_BEFORE),
        Step.STOP: _row(Move(Step.EXCHANGE), _BACK),
        Step.EXCHANGE: _row(Move(Step.POST_HOOK), _BACK),
        Step.POST_HOOK: _row(Move(Step.START), _BACK),
        Step.START: _row(Move(Step.HEALTH), _BACK),
        Step.HEALTH: _row(Move(Step.NEXT, +1), _BACK),
        Step.COMMIT: _row(Move(Step.CLEAN), _BACK_BEFORE),
        Step.CLEAN: _row(Move(Step.IDLE), Move(Step.CLEAN)),
        Step.UNDO: _row(_ABANDON, _ABANDON, more=Move(Step.UNDO_STOP)),
        Step.UNDO_STOP: _row(Move(Step.UNDO_EXCHANGE), _GIVE_UP),
        Step.UNDO_EXCHANGE: _row(Move(Step.UNDO_START), _GIVE_UP),
        Step.UNDO_START: _row(Move(Step.UNDO_HEALTH), _GIVE_UP),
        Step.UNDO_HEALTH: _row(_BACK_BEFORE, _GIVE_UP),
        Step.CRITICAL: _row(_BACK_BEFORE, _BACK_BEFORE),
        Step.DISCARD: _row(Move(Step.IDLE), Move(Step.DISCARD)),
    }
)
"""Step → event → what follows. A step that follows itself stays in the journal and is tried again at the next start."""

RESUME: Mapping[Step, Move] = MappingProxyType(
    {
        Step.IDLE: Move(Step.IDLE),
        Step.DOWNLOAD: _ABANDON,
        Step.STAGE: _ABANDON,
        Step.NEXT: _BACK_BEFORE,
        Step.PRE_HOOK: _BACK_BEFORE,
        Step.STOP: _BACK,
        Step.EXCHANGE: _BACK,
        Step.POST_HOOK: _BACK,
        Step.START: _BACK,
        Step.HEALTH: _BACK,
        Step.COMMIT: Move(Step.COMMIT),
        Step.CLEAN: Move(Step.CLEAN),
        Step.UNDO: Move(Step.UNDO),
        # The programs did not survive a power cut: each component goes back from the start.
        Step.UNDO_STOP: _BACK,
        Step.UNDO_EXCHANGE: _BACK,
        Step.UNDO_START: _BACK,
        Step.UNDO_HEALTH: _BACK,
        Step.CRITICAL: Move(Step.CRITICAL),
        Step.DISCARD: Move(Step.DISCARD),
    }
)
"""Step found in the journal at start → where to go on."""

UNDOING = frozenset(
    {Step.UNDO, Step.UNDO_STOP, Step.UNDO_EXCHANGE, Step.UNDO_START, Step.UNDO_HEALTH, Step.CRITICAL, Step.DISCARD}
)
"""Steps that lead back. They go on when the journal cannot be written: what it says leads back, too."""

COMMITTED = frozenset({Step.COMMIT, Step.CLEAN})
"""Steps from which the new set stands."""


def follow(move: Move, position: int) -> tuple[Step, int]:
    """Return the step and the position after a move."""
    return move.step, position + move.shift
