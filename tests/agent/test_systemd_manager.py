"""The systemd adapter where systemd is strange, and where the agent is killed (L43, FR-CMP-001, promise 1)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from simulators.systemctl import Killed, SystemdSimulator
from support.managers import QuickClock, systemd_on

from agent.codes import Code
from agent.errors import AgentError
from agent.platform.cgroup import members
from agent.platform.systemd import SystemdManager
from agent.ports import Finished, Unit
from repo_server.core.package import Service, ServiceKind

SHIPPED = """\
[Unit]
Description=Version {version}
[Service]
WorkingDirectory=/
ExecStart=/bin/sleep 3600
TimeoutStopSec=infinity
"""


@dataclass
class Shop:
    """An install folder, a simulated systemd, and adapters for it."""

    folder: Path
    systemd: SystemdSimulator

    def manager(self) -> SystemdManager:
        """Return what the next process of the agent would work with."""
        return systemd_on(self.folder, self.systemd, QuickClock())

    def unit(self, version: str = "1", name: str = "demo", *, ship: bool = True) -> Unit:
        folder = self.folder / "service"
        (folder / "systemd").mkdir(parents=True, exist_ok=True)
        if ship:
            (folder / "systemd" / f"{name}.service").write_text(SHIPPED.format(version=version))
        return Unit("service", folder, Service(ServiceKind.SYSTEMD, name, (), 2.5))

    def installed(self) -> dict[str, str]:
        """Return the unit files: name → text."""
        return {path.name: path.read_text() for path in self.systemd.folder.iterdir()}


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    (tmp_path / "units").mkdir()
    systemd = SystemdSimulator(tmp_path / "units")
    yield Shop(tmp_path, systemd)
    systemd.dying_at = None
    systemd.power_off()


def test_the_units_text_is_the_packages_with_its_stop_timeout_behind_it(shop: Shop) -> None:
    """The last value counts; 2.5 s as the package says, not for ever as the unit says."""
    shop.manager().start(shop.unit("7"))
    text = shop.installed()["demo.service"]
    assert SHIPPED.format(version="7") in text
    assert text.rindex("TimeoutStopSec=2500ms") > text.index("TimeoutStopSec=infinity")
    assert "component service" in text.splitlines()[0]


def test_another_name_in_the_next_version_leaves_no_unit_of_the_old_name(shop: Shop) -> None:
    old, new = shop.unit(name="demo"), shop.unit(name="renamed")
    manager = shop.manager()
    manager.start(old)
    manager.stop(old)
    manager.start(new)
    # After an update that is taken back, the agent stops by the old package what runs by the new.
    shop.manager().stop(old)
    assert (shop.installed(), shop.systemd.enabled) == ({}, set())
    assert not shop.manager().wanted("service")


def test_a_start_right_after_a_rename_removes_the_unit_of_the_old_name(shop: Shop) -> None:
    shop.manager().start(shop.unit(name="demo"))
    shop.manager().start(shop.unit(name="renamed"))
    assert (set(shop.installed()), shop.systemd.enabled) == ({"renamed.service"}, {"renamed.service"})


@pytest.mark.parametrize("text", ["[Service]\nExecStart=/bin/true\n", None])
def test_a_unit_file_of_somebody_else_is_left_alone(shop: Shop, text: str | None) -> None:
    """Also when it is a link, as of a masked unit."""
    path = shop.systemd.folder / "demo.service"
    path.symlink_to("/dev/null") if text is None else path.write_text(text)
    unit = shop.unit()
    with pytest.raises(AgentError, match="did not write") as caught:
        shop.manager().start(unit)
    assert caught.value.code is Code.START_FAILED
    shop.manager().stop(unit)
    assert path.is_symlink() if text is None else path.read_text() == text


def test_a_unit_of_the_distribution_is_not_shadowed(shop: Shop) -> None:
    shop.systemd.foreign["demo.service"] = "/lib/systemd/system/demo.service"
    with pytest.raises(AgentError, match=r"/lib/systemd/system/demo\.service") as caught:
        shop.manager().start(shop.unit())
    assert (caught.value.code, shop.installed()) == (Code.START_FAILED, {})


def test_the_agents_own_names_are_refused(shop: Shop) -> None:
    with pytest.raises(AgentError, match="reserved") as caught:
        shop.manager().start(shop.unit(name="commandit-updater"))
    assert (caught.value.code, shop.installed()) == (Code.START_FAILED, {})


def test_a_package_without_unit_and_command_says_where_the_unit_is_expected(shop: Shop) -> None:
    with pytest.raises(AgentError, match=r"systemd/demo\.service is missing"):
        shop.manager().start(shop.unit(ship=False))


@pytest.mark.parametrize("content", [b"\xff\xfe", b"a\0b", b"#" * 70_000])
def test_what_is_no_text_is_no_unit(shop: Shop, content: bytes) -> None:
    unit = shop.unit()
    (unit.folder / "systemd" / "demo.service").write_bytes(content)
    with pytest.raises(AgentError, match="no unit file"):
        shop.manager().start(unit)


def test_a_unit_behind_a_link_is_not_read(shop: Shop) -> None:
    unit = shop.unit(ship=False)
    (unit.folder / "systemd" / "demo.service").symlink_to("/etc/hostname")
    with pytest.raises(AgentError, match="expected a regular file"):
        shop.manager().start(unit)


def test_a_machine_without_systemd_says_so(shop: Shop) -> None:
    shop.systemd.silent = True
    unit = shop.unit()
    with pytest.raises(AgentError, match="Failed to connect to bus") as caught:
        shop.manager().start(unit)
    assert caught.value.code is Code.START_FAILED
    assert not shop.manager().running(unit)
    assert shop.manager().last_output("service") == ""


def test_no_answer_is_never_taken_for_stopped(shop: Shop) -> None:
    unit = shop.unit()
    shop.manager().start(unit)
    shop.systemd.silent = True
    with pytest.raises(AgentError, match="does not answer") as caught:
        shop.manager().stop(unit)
    assert caught.value.code is Code.STOP_FAILED
    assert shop.manager().wanted("service")


def test_a_service_that_systemd_started_again_has_ended_for_whoever_started_it(shop: Shop) -> None:
    unit = shop.unit()
    manager = shop.manager()
    manager.start(unit)
    shop.systemd.units["demo.service"].invocation = "another"
    assert not manager.running(unit)
    assert shop.manager().running(unit)


def test_after_a_power_cut_in_an_update_the_boot_leaves_it_to_the_recovery(shop: Shop) -> None:
    unit = shop.unit()
    shop.manager().start(unit)
    shop.systemd.power_off()
    (shop.folder / "journal").touch()
    (shop.folder / "started" / "service").unlink()  # /run is empty after a boot
    shop.systemd.boot()
    assert not shop.manager().running(unit)
    shop.manager().start(unit)
    assert shop.manager().running(unit)


def test_without_an_update_under_way_the_boot_starts_it(shop: Shop) -> None:
    unit = shop.unit()
    shop.manager().start(unit)
    shop.systemd.power_off()
    (shop.folder / "started" / "service").unlink()
    shop.systemd.boot()
    assert shop.manager().running(unit)
    assert (shop.folder / "started" / "service").exists(), "systemd may restart it during the next update"


def test_a_condition_of_the_package_that_does_not_hold_is_a_failed_start(shop: Shop) -> None:
    unit = shop.unit()
    path = unit.folder / "systemd" / "demo.service"
    path.write_text(path.read_text() + "[Unit]\nConditionPathExists=|/nowhere\n")
    (shop.folder / "started").mkdir()
    manager = shop.manager()
    shop.systemd.failing["show"] = Finished(0, "ActiveState=inactive\nConditionResult=no\nFragmentPath=")
    with pytest.raises(AgentError, match="condition that does not hold"):
        manager.start(unit)
    del shop.systemd.failing["show"]


def test_killed_at_any_call_starting_and_stopping_can_be_repeated(shop: Shop) -> None:
    unit, deaths = shop.unit(), 0
    while True:
        shop.systemd.calls.clear()
        shop.systemd.dying_at = deaths
        try:
            manager = shop.manager()
            manager.start(unit)
            manager.stop(unit)
        except Killed:
            deaths += 1
        else:
            break
        shop.systemd.dying_at = None
        shop.manager().start(unit)
        assert shop.manager().running(unit)
        assert shop.systemd.enabled == {"demo.service"}
        shop.manager().stop(unit)
        assert (shop.installed(), shop.systemd.enabled) == ({}, set())
        assert not shop.manager().running(unit)
    assert deaths > 8


def test_a_running_service_whose_file_was_removed_is_stopped_all_the_same(shop: Shop) -> None:
    unit = shop.unit()
    shop.manager().start(unit)
    (shop.systemd.folder / "demo.service").unlink()
    shop.manager().stop(unit)
    assert shop.systemd.units == {}, "systemd forgets a unit without a file as soon as nothing of it runs"


def test_stopping_a_component_of_another_kind_asks_systemd_nothing(shop: Shop) -> None:
    unit = shop.unit()
    shop.manager().stop(replace(unit, service=Service(ServiceKind.PROCESS, None, ("bin/serve",))))
    assert shop.systemd.calls == []


def test_the_members_of_a_control_group_are_found_below_it_too(tmp_path: Path) -> None:
    inner = tmp_path / "system.slice" / "demo.service" / "inner"
    inner.mkdir(parents=True)
    (inner / "cgroup.procs").write_text("12\n7\n0\n")
    (inner.parent / "cgroup.procs").write_text("3\n")
    assert members("/system.slice/demo.service", (tmp_path, tmp_path / "none")) == [3, 7, 12]
    assert members("", (tmp_path,)) == members("/gone", (tmp_path,)) == []
