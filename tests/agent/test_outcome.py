"""Whose fault it was that a sequence failed (FR-RBK-001)."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from agent.codes import Code
from agent.journal import Entry, Failure, Item, Sequence
from agent.outcome import judged
from agent.quarantine import Quarantine
from repo_server.core.wire import Action

ITEM = Item("service", "1.1.0", "1.0.0", Action.UPDATE, "0" * 64, "record", 1)


@pytest.mark.parametrize(
    ("code", "went_back", "counts"),
    [
        (Code.PERMISSION, False, False),
        (Code.IO, False, False),
        (Code.DISK_FULL, False, False),
        (Code.PERMISSION, True, True),
        (Code.HASH_MISMATCH, False, False),
        (Code.SIGNATURE_INVALID, False, False),
        (Code.OFFER_INVALID, False, False),
        (Code.IDENTITY_MISMATCH, False, True),
        (Code.UNPACK_FORBIDDEN, False, True),
        (Code.HEALTH_FAILED, True, True),
    ],
)
def test_only_what_is_the_releases_fault_counts(code: Code, went_back: bool, counts: bool) -> None:
    """Else a read-only folder, or a mirror with wrong bytes, would have a good release skipped for good."""
    sequence = Sequence("attempt", "scheduled", datetime.now(UTC), (ITEM,))
    entry = Entry(sequence, failure=Failure("service", code, "no"), went_back=went_back)
    before = Quarantine().counting((ITEM,), "attempt")
    assert bool(judged(before, entry).tried) is counts
