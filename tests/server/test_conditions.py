"""What is wrong with the server itself, as it is asked about."""

from __future__ import annotations

from datetime import UTC, datetime

from repo_server.telemetry.conditions import Conditions

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def test_a_part_that_cannot_say_how_it_is_does_not_keep_the_others_from_being_asked() -> None:
    def broken() -> str | None:
        raise TypeError("can't compare")

    conditions = Conditions()
    conditions.watch("first", broken)
    conditions.watch("second", lambda: "the disk is full")
    found = {item.code: item.message for item in conditions.look(NOW)}
    assert found["second"] == "the disk is full"
    assert "could not be found out: TypeError: can't compare" in found["first"]
