"""Health checks of all kinds, against real programs and sockets, with a clock of the test's own (L43, FR-CMP-005)."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from support.programs import free_port

from agent.codes import Code
from agent.errors import AgentError
from agent.health import HealthChecker
from agent.platform.programs import LocalPrograms
from agent.ports import Unit
from repo_server.core.package import Health, HealthKind, Service, ServiceKind


class FastClock:
    """Sleeping costs no time."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> datetime:
        return datetime(2026, 11, 21, tzinfo=UTC)

    def monotonic(self) -> float:
        self.seconds += 0.001
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds


class Programs:
    """A service manager whose program ends after a number of looks."""

    def __init__(self, looks: int = 1_000_000) -> None:
        self.looks = looks

    def start(self, unit: Unit) -> None: ...

    def stop(self, unit: Unit) -> None: ...

    def running(self, unit: Unit) -> bool:  # noqa: ARG002 -- the port's signature
        self.looks -= 1
        return self.looks >= 0

    def wanted(self, component: str) -> bool:  # noqa: ARG002 -- the port's signature
        return True

    def last_output(self, component: str) -> str:  # noqa: ARG002 -- the port's signature
        return "starting\nout of memory"


def check(folder: Path, health: Health, looks: int = 1_000_000, kind: ServiceKind = ServiceKind.PROCESS) -> FastClock:
    clock = FastClock()
    unit = Unit("service", folder, Service(kind, None, ("bin/serve",)))
    HealthChecker(Programs(looks), LocalPrograms({"PATH": "/usr/bin:/bin"}), clock).check(unit, health)
    return clock


@contextmanager
def answering(*statuses: int) -> Iterator[str]:
    """Serve the statuses one after the other, the last one for ever."""
    left = list(statuses)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(left.pop(0) if len(left) > 1 else left[0])
            self.send_header("Location", "http://127.0.0.1:9/")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/healthz?full=1"
        server.shutdown()
        thread.join()


def test_http_is_healthy_once_it_answers_with_success(tmp_path: Path) -> None:
    with answering(500, 503, 204) as url:
        check(tmp_path, Health(HealthKind.HTTP, url=url, timeout_seconds=30))


@pytest.mark.parametrize("status", [199, 302, 404, 500])
def test_http_is_not_healthy_with_another_answer(tmp_path: Path, status: int) -> None:
    """A redirect is not followed: it could lead to somebody else's page."""
    with answering(status) as url, pytest.raises(AgentError, match="not healthy within 2 s") as caught:
        check(tmp_path, Health(HealthKind.HTTP, url=url, timeout_seconds=2))
    assert caught.value.code is Code.HEALTH_FAILED
    assert "out of memory" in caught.value.message, "the program's last words are in the message"


def test_http_that_nobody_serves_is_not_healthy(tmp_path: Path) -> None:
    with pytest.raises(AgentError, match="refused"):
        check(tmp_path, Health(HealthKind.HTTP, url=f"http://127.0.0.1:{free_port()}/", timeout_seconds=1))


def test_tcp_is_healthy_when_it_accepts(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        check(tmp_path, Health(HealthKind.TCP, port=listener.getsockname()[1], timeout_seconds=1))
    with pytest.raises(AgentError, match="refused"):
        check(tmp_path, Health(HealthKind.TCP, port=free_port(), timeout_seconds=1))


def test_a_command_is_run_in_the_install_folder_until_it_succeeds(tmp_path: Path) -> None:
    script = tmp_path / "check"
    script.write_text("#!/bin/sh\necho tried >> tries\ntest $(wc -l < tries) -ge 3\n")
    script.chmod(0o755)
    check(tmp_path, Health(HealthKind.COMMAND, command=("./check",), timeout_seconds=30))
    assert (tmp_path / "tries").read_text() == "tried\n" * 3


def test_a_command_that_fails_or_is_not_there_is_said(tmp_path: Path) -> None:
    for command, why in (
        (("sh", "-c", "echo bad; exit 4"), "ended with 4: bad"),
        (("nothing-there",), "cannot be started"),
    ):
        with pytest.raises(AgentError, match=why):
            check(tmp_path, Health(HealthKind.COMMAND, command=command, timeout_seconds=0.5))


def test_a_program_that_ended_is_not_healthy_whoever_answers_for_it(tmp_path: Path) -> None:
    """The port may belong to an old program that nobody stopped."""
    with answering(200) as url, pytest.raises(AgentError, match="its program ended"):
        check(tmp_path, Health(HealthKind.HTTP, url=url, timeout_seconds=30), looks=0)


def test_a_program_must_stay_up_through_its_probation(tmp_path: Path) -> None:
    clock = check(tmp_path, Health(HealthKind.PROCESS, probation_seconds=20))
    assert clock.seconds >= 20
    with pytest.raises(AgentError, match="its program ended"):
        check(tmp_path, Health(HealthKind.PROCESS, probation_seconds=20), looks=50)


def test_staying_up_means_for_a_second_at_least(tmp_path: Path) -> None:
    assert check(tmp_path, Health(HealthKind.PROCESS)).seconds >= 1


def test_after_probation_it_must_still_be_healthy(tmp_path: Path) -> None:
    with answering(200, 500) as url, pytest.raises(AgentError, match="answered 500"):
        check(tmp_path, Health(HealthKind.HTTP, url=url, timeout_seconds=1, probation_seconds=5))


def test_a_component_without_a_program_is_healthy_unless_its_own_check_says_otherwise(tmp_path: Path) -> None:
    check(tmp_path, Health(HealthKind.PROCESS), looks=0, kind=ServiceKind.NONE)
    with pytest.raises(AgentError, match="ended with 1"):
        check(
            tmp_path, Health(HealthKind.COMMAND, command=("false",), timeout_seconds=0.1), looks=0,
            kind=ServiceKind.NONE,
        )  # fmt: skip
