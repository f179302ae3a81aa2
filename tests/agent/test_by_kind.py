"""Several kinds of service managers on one machine (L43)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support.managers import Bench, process_bench, systemd_bench

from agent.codes import Code
from agent.errors import AgentError
from agent.platform.bykind import ByKind
from agent.ports import Unit
from repo_server.core.package import ServiceKind

PROGRAM = "#!/bin/sh\necho up >> said\nwhile :; do sleep 0.05; done\n"


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with process_bench(tmp_path) as bench:
        yield bench


@pytest.fixture
def services(bench: Bench) -> Iterator[ByKind]:
    with systemd_bench(bench.folder) as systemd:
        yield ByKind({ServiceKind.PROCESS: bench.fresh(), ServiceKind.SYSTEMD: systemd.fresh()})


def run_by(unit: Unit, kind: ServiceKind) -> Unit:
    return replace(unit, service=replace(unit.service, kind=kind))


@pytest.mark.parametrize(
    ("before", "after"),
    [(ServiceKind.PROCESS, ServiceKind.SYSTEMD), (ServiceKind.SYSTEMD, ServiceKind.PROCESS)],
)
def test_a_version_of_another_kind_is_stopped_by_the_manager_that_started_it(
    services: ByKind, bench: Bench, before: ServiceKind, after: ServiceKind
) -> None:
    old, new = (run_by(bench.unit(PROGRAM, timeout=0.5), kind) for kind in (before, after))
    services.start(old)
    assert (services.running(old), services.running(new), services.wanted("service")) == (True, False, True)
    services.stop(new)
    assert (services.running(old), services.wanted("service")) == (False, False)
    services.start(new)
    assert services.running(new)
    services.stop(new)


def test_the_last_output_is_that_of_the_manager_which_runs_it(services: ByKind, bench: Bench) -> None:
    unit = run_by(bench.unit("#!/bin/sh\necho spoken\nexit 3\n"), ServiceKind.PROCESS)
    services.start(unit)
    while services.running(unit):
        pass
    assert services.last_output("service") == "spoken"


def test_a_kind_that_the_machine_does_not_have_is_named(services: ByKind, bench: Bench) -> None:
    unit = run_by(bench.unit(PROGRAM), ServiceKind.LAUNCHD)
    with pytest.raises(AgentError, match=r"launchd.*process, systemd") as caught:
        services.start(unit)
    assert caught.value.code is Code.NOT_SUPPORTED
    assert not services.running(unit)
