"""Hooks and health commands on Linux: nothing of them is left behind, and what they write is bounded (L43, L44)."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from agent.platform.proc import start_ticks
from agent.platform.programs import LocalPrograms
from agent.platform.spoken import OUTPUT_BYTES

ENVIRONMENT = {"PATH": os.environ["PATH"]}
LEAVES = "setsid sleep 61 & echo $!; "


def run(folder: Path, script: str, timeout: float = 20.0) -> tuple[int | None, str]:
    finished = LocalPrograms(ENVIRONMENT).run(["sh", "-c", script], folder, {}, timeout)
    return finished.exit_code, finished.output


def test_what_left_the_session_of_a_late_one_is_ended(tmp_path: Path) -> None:
    exit_code, said = run(tmp_path, LEAVES + "sleep 62", timeout=0.5)
    assert exit_code is None
    assert start_ticks(int(said)) is None


def test_what_left_the_session_of_one_that_is_done_is_ended_too(tmp_path: Path) -> None:
    exit_code, said = run(tmp_path, LEAVES)
    assert exit_code == 0
    assert start_ticks(int(said)) is None


def test_another_program_that_was_run_like_it_is_left_alone(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "60"], env={**ENVIRONMENT, "COMMANDIT_RUN": "another"}) as stranger:
        run(tmp_path, "exit 0")
        assert stranger.poll() is None
        stranger.kill()


def test_one_that_never_stops_writing_costs_no_disk_and_is_slowed_down(tmp_path: Path) -> None:
    """It would fill the disk until its time is over."""
    exit_code, said = run(tmp_path, "readlink /proc/self/fd/1 >&2; exec yes", timeout=1.0)
    assert exit_code is None
    first, _, rest = said.partition("\n")
    assert 0 < int(first.split()[0].strip("[")) < 64 << 20
    assert first.endswith("bytes before this were cut]")
    assert set(rest.splitlines()) == {"y"}
    assert len(rest) <= OUTPUT_BYTES


def test_what_it_writes_goes_into_no_file(tmp_path: Path) -> None:
    assert run(tmp_path, "readlink /proc/self/fd/1")[1].startswith("pipe:")


def test_the_last_words_are_kept_and_the_cut_is_said(tmp_path: Path) -> None:
    exit_code, said = run(tmp_path, "seq 300000")
    assert exit_code == 0
    assert said.startswith("[")
    assert said.splitlines()[-1] == "300000"


def test_one_that_closes_its_output_is_waited_for(tmp_path: Path) -> None:
    assert run(tmp_path, "exec >&- 2>&-; sleep 0.3; exit 3") == (3, "")


def test_one_that_left_an_open_output_behind_does_not_hold_us_up(tmp_path: Path) -> None:
    """It carries no token, so it is not found."""
    exit_code, said = run(tmp_path, "env -i setsid sleep 2 & echo done")
    assert (exit_code, said) == (0, "done")
