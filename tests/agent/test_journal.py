"""The journal: what is found after a crash or a damaged disk is known, or undone."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent.codes import Code
from agent.journal import Entry, Failure, Item, Journal, Sequence
from agent.steps import Step
from repo_server.core.wire import Action


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "journal", tmp_path / "copy")


def item(component: str) -> Item:
    return Item(component, "1.1.0", "1.0.0", Action.UPDATE, "ab" * 32, "0b1c2d3e-4f50-4a6b-8c7d-9e0f1a2b3c4d", 4711)


SEQUENCE = Sequence("attempt", "manual", datetime(2026, 11, 21, tzinfo=UTC), (item("service"), item("ui")))


def test_what_was_written_is_read(journal: Journal) -> None:
    entry = journal.begin(SEQUENCE)
    assert journal.read().entry == entry == Entry(SEQUENCE)
    later = replace(
        entry, step=Step.UNDO_START, position=1, went_back=True, failure=Failure("ui", Code.HEALTH_FAILED, "no"),
        critical=(Failure("service", Code.STOP_FAILED, "hangs"),),
    )  # fmt: skip
    journal.write(later)
    assert journal.read().entry == later


def test_nothing_is_going_on_before_and_after(journal: Journal, tmp_path: Path) -> None:
    assert journal.read().entry is None
    journal.begin(SEQUENCE)
    journal.clear()
    journal.clear()
    assert (journal.read().entry, journal.read().damage) == (None, None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"\0" * 400, b"{", b"garbage", b'{"format": 99, "step": "fly"}'])
def test_a_damaged_entry_is_undone_from_the_copy(journal: Journal, tmp_path: Path, content: bytes) -> None:
    """NFR-REL-003."""
    journal.begin(SEQUENCE)
    (tmp_path / "journal").write_bytes(content)
    found = journal.read()
    assert found.damage is not None
    assert found.entry is not None
    assert (found.entry.sequence, found.entry.step, found.entry.position) == (SEQUENCE, Step.UNDO, 1)


def test_a_step_of_another_version_is_undone(journal: Journal) -> None:
    entry = journal.begin(SEQUENCE)
    journal.write(replace(entry, step="teleport"))  # type: ignore[arg-type]
    found = journal.read()
    assert found.damage is not None
    assert found.entry is not None
    assert found.entry.step is Step.UNDO


def test_a_position_outside_the_sequence_is_undone(journal: Journal) -> None:
    journal.write(replace(journal.begin(SEQUENCE), position=7))
    assert journal.read().damage is not None


def test_when_both_files_are_damaged_it_is_said_and_nothing_is_guessed(journal: Journal, tmp_path: Path) -> None:
    journal.begin(SEQUENCE)
    for name in ("journal", "copy"):
        (tmp_path / name).write_bytes(b"\0" * 100)
    found = journal.read()
    assert found.entry is None
    assert "copy" in (found.damage or "")
