"""What is wrong with the server itself, as it is asked about."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import repo_server
from repo_server.telemetry.conditions import Conditions
from repo_server.tree.whole import WHOLE_TREE

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
HOME = Path(repo_server.__file__).parent
_WATCHED = re.compile(r'\.watch\(\s*"(\w+)"')


def test_a_part_that_cannot_say_how_it_is_does_not_keep_the_others_from_being_asked() -> None:
    def broken() -> str | None:
        raise TypeError("can't compare")

    conditions = Conditions()
    conditions.watch("first", broken)
    conditions.watch("second", lambda: "the disk is full")
    found = {item.code: item.message for item in conditions.look(NOW)}
    assert found["second"] == "the disk is full"
    assert "could not be found out: TypeError: can't compare" in found["first"]


def test_every_condition_stands_in_the_readme() -> None:
    watched = {code for path in HOME.rglob("*.py") for code in _WATCHED.findall(path.read_text())}
    assert {"database_away", "scan_stalled"} <= watched
    table = "\n".join(line for line in (HOME / "README.md").read_text().splitlines() if line.startswith("| `"))
    missing = {code for code in {*watched, *WHOLE_TREE} if f"`{code}`" not in table}
    assert missing == set()
