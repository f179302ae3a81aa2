"""The agent's own units: what is written, what is refused, and that builds ship them (FR-BST-002)."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from support.endpoints import Endpoint
from support.trees import Tree

from agent.codes import Code
from agent.errors import AgentError
from agent.platform.ownservice import DAEMON, NOW, NOW_SOCKET, ONCE, RECOVER, TIMER, OwnService, RunAs, shipped
from agent.ports import Finished

ROOT = Path(__file__).resolve().parent.parent.parent
COMMAND = ("/opt/a b/python", "-m", "agent")


@dataclass
class Calls:
    """The port ``Programs``: notes what is asked, and fails for one verb."""

    failing: str = ""
    made: list[tuple[str, ...]] = field(default_factory=list)

    def run(self, command: Sequence[str], folder: Path, facts: dict[str, str], timeout: float) -> Finished:
        assert (folder, facts, timeout > 0) == (Path("/"), {}, True)
        words = tuple(word for word in command[1:] if word == "--now" or not word.startswith("--"))
        self.made.append(words)
        return Finished(1, "no bus") if words[0] == self.failing else Finished(0, "")


def test_the_units_start_this_very_agent(tmp_path: Path) -> None:
    service = OwnService(Calls(), COMMAND, tmp_path)
    service.register(RunAs.TIMER, 7200)
    assert {path.name for path in tmp_path.iterdir()} == {RECOVER, ONCE, TIMER, NOW, NOW_SOCKET}
    assert 'ExecStart="/opt/a b/python" "-m" "agent" once --if-due\n' in (tmp_path / ONCE).read_text()
    assert 'ExecStart="/opt/a b/python" "-m" "agent" recover\n' in (tmp_path / RECOVER).read_text()
    assert (tmp_path / TIMER).stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize(("interval", "pause"), [(14_400, 900), (1200, 300), (60, 60)])
def test_the_timer_looks_several_times_within_an_interval(tmp_path: Path, interval: int, pause: int) -> None:
    OwnService(Calls(), COMMAND, tmp_path).register(RunAs.TIMER, interval)
    for key in ("OnUnitInactiveSec", "RandomizedDelaySec"):
        assert f"\n{key}={pause}\n" in (tmp_path / TIMER).read_text()


def test_registering_again_starts_what_does_not_run_and_restarts_only_what_changed(tmp_path: Path) -> None:
    calls = Calls()
    OwnService(calls, COMMAND, tmp_path).register(RunAs.DAEMON, 7200)
    assert calls.made[-1] == ("restart", DAEMON)
    calls.made.clear()
    OwnService(calls, COMMAND, tmp_path).register(RunAs.DAEMON, 7200)
    assert calls.made == [("enable", RECOVER), ("enable", DAEMON), ("start", DAEMON)]
    calls.made.clear()
    OwnService(calls, ("/opt/commandit/updater/bin/commandit-updater",), tmp_path).register(RunAs.DAEMON, 7200)
    assert calls.made[0] == ("daemon-reload",)
    assert calls.made[-1] == ("restart", DAEMON)


def test_another_way_to_run_takes_out_the_one_before(tmp_path: Path) -> None:
    calls = Calls()
    service = OwnService(calls, COMMAND, tmp_path)
    service.register(RunAs.DAEMON, 7200)
    assert service.current() is RunAs.DAEMON
    calls.made.clear()
    service.register(RunAs.TIMER, 7200)
    assert calls.made[0] == ("disable", "--now", DAEMON)
    assert (service.current(), (tmp_path / DAEMON).exists()) == (RunAs.TIMER, False)
    service.register(RunAs.NONE, 7200)
    assert (service.current(), list(tmp_path.iterdir())) == (RunAs.NONE, [])
    calls.made.clear()
    service.register(RunAs.NONE, 7200)
    assert calls.made == []


def test_recovery_that_finishes_a_removal_does_not_stop_itself(tmp_path: Path) -> None:
    calls = Calls()
    OwnService(calls, COMMAND, tmp_path).register(RunAs.DAEMON, 7200)
    calls.made.clear()
    within = f"0::/system.slice/{RECOVER}\n"
    OwnService(calls, COMMAND, tmp_path, within).register(RunAs.NONE, 7200)
    assert calls.made == [("disable", "--now", DAEMON), ("disable", RECOVER), ("daemon-reload",)]
    assert list(tmp_path.iterdir()) == []


def test_a_masked_agent_says_which_command_unmasks_it(tmp_path: Path) -> None:
    (tmp_path / DAEMON).symlink_to("/dev/null")
    with pytest.raises(AgentError, match=f"systemctl unmask {DAEMON}") as caught:
        OwnService(Calls(), COMMAND, tmp_path).register(RunAs.DAEMON, 7200)
    assert caught.value.code is Code.START_FAILED
    assert (tmp_path / DAEMON).is_symlink()


@pytest.mark.parametrize("verb", ["daemon-reload", "enable", "restart"])
def test_what_systemd_refuses_is_said_with_what_to_do(tmp_path: Path, verb: str) -> None:
    with pytest.raises(AgentError, match=rf"systemctl {verb}.*no bus.*run install again") as caught:
        OwnService(Calls(verb), COMMAND, tmp_path).register(RunAs.DAEMON, 7200)
    assert caught.value.code is Code.START_FAILED


def test_a_relocated_endpoint_cannot_register_the_agent(tmp_path: Path) -> None:
    """It is configured all the same: only what was asked for beyond that is refused."""
    endpoint = Endpoint(tmp_path / "endpoint")
    (tmp_path / "root.json").write_bytes(Tree(tmp_path / "downloads").root_json)
    done = endpoint.run(
        "install", "--server", "http://127.0.0.1:1", "--root", tmp_path / "root.json", "--components", "service",
        "--run-as", "timer", expect=None,
    )  # fmt: skip
    assert done.returncode == Code.NOT_SUPPORTED.exit_code
    assert "cannot run as timer" in done.stderr
    assert endpoint.paths.config.exists()


def test_every_unit_of_the_agent_is_in_the_wheel_and_can_be_found() -> None:
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    units = {f"systemd/{path.name}": path for path in (ROOT / "systemd").glob("commandit-updater*")}
    assert wheel["force-include"] == {name: f"agent/systemd_units/{path.name}" for name, path in units.items()}
    assert {path.name: path.read_text() for path in units.values()} == {
        name: shipped(name) for name in (DAEMON, TIMER, ONCE, RECOVER, NOW, NOW_SOCKET)
    }
    with pytest.raises(AgentError, match=r"has no nothing\.service"):
        shipped("nothing.service")
