"""The tables of ``agent.steps`` are total, and every way through them ends (NFR-REL-002, NFR-REL-003)."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from agent.steps import COMMITTED, RESUME, TRANSITIONS, UNDOING, Event, Step, follow


def test_every_step_knows_what_follows_every_event() -> None:
    assert set(TRANSITIONS) == set(Step)
    assert all(set(row) == set(Event) for row in TRANSITIONS.values())


def test_every_step_knows_what_to_do_after_a_crash() -> None:
    assert set(RESUME) == set(Step)


@pytest.mark.parametrize("step", Step)
def test_every_step_leads_to_idle_when_all_goes_well(step: Step) -> None:
    for position in range(3):
        assert walk(step, position, ()) is Step.IDLE


@pytest.mark.parametrize("start", [Step.DOWNLOAD, *(RESUME[step].step for step in Step)])
@pytest.mark.parametrize("failing", Step)
def test_every_step_leads_to_idle_when_one_step_always_fails(start: Step, failing: Step) -> None:
    """Except where nothing but trying again at the next start is left."""
    ends = {Step.IDLE, *({failing} if failing in {Step.CLEAN, Step.DISCARD} else ())}
    assert walk(start, 1, (failing,)) in ends


def walk(step: Step, position: int, failing: Iterable[Step], size: int = 3) -> Step:
    """Follow the table as the runner does, for a sequence of three components."""
    for _ in range(500):
        if step is Step.IDLE:
            return step
        more = position < size if step is Step.NEXT else step is Step.UNDO and position >= 0
        event = Event.FAILED if step in failing else Event.MORE if more else Event.DONE
        after, position = follow(TRANSITIONS[step][event], position)
        if after is step:
            return step
        step = after
        assert -1 <= position <= size
    raise AssertionError(f"it goes round in circles at {step}")


def test_what_is_not_committed_goes_back_after_a_crash_and_what_is_goes_on() -> None:
    for step, move in RESUME.items():
        if step in COMMITTED:
            assert move.step is step
        elif step is not Step.IDLE:
            assert move.step in UNDOING, f"{step} is not committed"


def test_a_component_that_was_not_touched_is_not_taken_back() -> None:
    """The position before it is where undoing starts."""
    for step in (Step.NEXT, Step.PRE_HOOK, Step.COMMIT):
        assert follow(TRANSITIONS[step][Event.FAILED], 2) == (Step.UNDO, 1)
    assert follow(RESUME[Step.NEXT], 2) == (Step.UNDO, 1)
    for step in (Step.STOP, Step.EXCHANGE, Step.POST_HOOK, Step.START, Step.HEALTH):
        assert follow(TRANSITIONS[step][Event.FAILED], 2) == follow(RESUME[step], 2) == (Step.UNDO, 2)


def test_an_event_that_a_step_never_reports_counts_as_failed() -> None:
    for step in set(Step) - {Step.NEXT, Step.UNDO}:
        assert TRANSITIONS[step][Event.MORE] == TRANSITIONS[step][Event.FAILED]
