"""Promise 1, at a sample of the points that ``make crash`` tries in full; every failure says how to repeat it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent.parent
pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="programs are found by /proc")


def crash(*arguments: str) -> None:
    """Make the trials that ``arguments`` name; fail with what failed."""
    done = subprocess.run(
        [sys.executable, "-m", "crash", "--jobs", "1", *arguments],
        cwd=TESTS, capture_output=True, text=True, check=False, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout[-6000:]}{done.stderr[-3000:]}"
    assert "0 failed" in done.stdout


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("table", "sample"), [("update", 4), ("rollback", 3), ("reinstall", 2), ("uninstall", 2), ("install", 2)]
)
def test_whatever_happens_at_a_call_one_whole_set_is_in_place_and_running(table: str, sample: int) -> None:
    """NFR-REL-003: killed, killed again while recovering, refused by the disk in five ways, cut off from power."""
    crash("--table", table, "--sample", str(sample))


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("table", "kind"), [("update", "power"), ("rollback", "kill")])
def test_a_recovery_from_any_step_may_be_cut_off_as_well(table: str, kind: str) -> None:
    crash("--table", table, "--recoveries", "--sample", "1", "--shift", "7", "--kind", kind)


def test_a_disk_that_is_full_at_the_commit_never_leaves_old_folders_under_a_new_manifest() -> None:
    """The journal said COMMIT and could not be changed, and the set went back all the same."""
    crash("--table", "update", "--step", "commit", "--kind", "full", "--kind", "EIO", "--sample", "8")


def test_a_step_that_could_not_be_written_down_has_not_begun() -> None:
    """A component that was to be stopped next was stopped, not started again, and nobody knew."""
    crash("--table", "update", "--step", "pre_hook", "--kind", "full", "--sample", "6")


def test_after_a_recovery_the_status_says_what_is_installed() -> None:
    """FR-STA-001: killed behind the last step of the journal, it said "in progress" until the next cycle."""
    crash("--table", "update", "--step", "clean", "--kind", "kill", "--sample", "10", "--shift", "-1")


def test_a_recovery_removes_what_an_error_left_behind() -> None:
    """FR-UPD-008: a backup that could not be removed lay there until the next update of that component."""
    crash("--table", "update", "--step", "clean", "--kind", "EIO", "--sample", "10")


def test_a_recovery_removes_the_temporary_files_of_a_download() -> None:
    """FR-UPD-008: the recovery before looked into other folders only."""
    crash("--table", "update", "--step", "download", "--kind", "kill", "--sample", "8")


def test_a_first_installation_does_not_lose_the_folder_that_its_journal_lies_in() -> None:
    """Folders were made, and not flushed with the names of what lies in them."""
    crash("--table", "install", "--kind", "power", "--sample", "24", "--shift", "500")


def test_a_report_that_a_killed_agent_left_is_not_lost_in_a_power_cut_after_the_recovery() -> None:
    """The recovery found the report there, and went on without making its name durable."""
    crash("--table", "update-report", "--kind", "power", "--sample", "40")
