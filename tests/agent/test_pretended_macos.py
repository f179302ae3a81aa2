"""The agent where nothing is that only Linux has: every module is imported, and the resident agent runs.

Whole updates with launchd are in test_other_systems.py; what no test here can show is in agent/README.md.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from support.endpoints import wait_until

TESTS = Path(__file__).resolve().parent.parent
ENVIRONMENT = {"PYTHONPATH": f"{TESTS}:{TESTS.parent}", "PATH": os.environ["PATH"]}
CHILD = """\
#!/bin/sh
trap 'echo asked >> "$0.said"; exit 0' TERM
echo "$@" >> "$0.said"
case "$*" in *checknow*) while :; do sleep 0.05; done ;; esac
"""


def command(*words: str | Path) -> list[str]:
    return [sys.executable, "-m", "support.pretended_macos", *map(str, words)]


def test_every_module_of_the_agent_is_imported_but_those_of_other_systems() -> None:
    done = subprocess.run(command("imports"), env=ENVIRONMENT, capture_output=True, text=True, check=True)
    refused = json.loads(done.stdout)
    assert all("; expected " in said for said in refused.values()), refused
    assert {name for name in refused if not name.startswith("agent.platform.")} == {"agent.supervision"}
    assert "agent.platform.proc" in refused


def test_the_resident_agent_checks_and_ends_by_signals_and_leaves_programs_to_launchd(tmp_path: Path) -> None:
    """Its children are a script, which notes what it is started with; the last one ends when it is asked to."""
    (tmp_path / "root" / "var" / "lib" / "commandit" / "run").mkdir(parents=True)
    script = tmp_path / "child"
    script.write_text(CHILD)
    script.chmod(0o755)
    said = Path(f"{script}.said")

    def verbs() -> list[str]:
        return [line.split()[-1] for line in said.read_text().splitlines()] if said.exists() else []

    with subprocess.Popen(command("run", tmp_path / "root", script), env=ENVIRONMENT) as agent:
        wait_until(lambda: verbs() == ["recover", "once"], "the first cycle")
        agent.send_signal(signal.SIGHUP)
        wait_until(lambda: verbs() == ["recover", "once", "checknow"], "somebody asked for a check")
        agent.send_signal(signal.SIGTERM)
        assert agent.wait(60) == 0
    assert verbs() == ["recover", "once", "checknow", "asked"]
