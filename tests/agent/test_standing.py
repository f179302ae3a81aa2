"""What the status says of components that wait for a person (FR-RBK-002, FR-STA-001)."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest
from support.components import PLATFORM
from support.managers import ENVIRONMENT, RealClock

from agent.codes import Code
from agent.config import Config
from agent.endpoint import Endpoint, World, put_together
from agent.journal import Failure
from agent.paths import Paths
from agent.quarantine import ATTEMPTS, Quarantine, save_quarantine
from agent.result import Result
from agent.standing import Standing
from agent.status import OperationStatus, load_status


@pytest.fixture
def endpoint(tmp_path: Path) -> Endpoint:
    paths = Paths(tmp_path)
    paths.create()
    world = World(RealClock(), lambda: 0.5, lambda: str(uuid.uuid4()), PLATFORM, "1.0.0", ENVIRONMENT)
    return put_together(paths, Config(), world)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (Code.HEALTH_FAILED, "service could not be taken back and is stopped: why"),
        (Code.STOP_FAILED, "service could not be taken back and may still run, for it cannot be stopped: why"),
    ],
)
def test_a_component_that_waits_for_a_person_stays_the_headline(endpoint: Endpoint, code: Code, said: str) -> None:
    save_quarantine(endpoint.paths.state / ATTEMPTS, Quarantine(held=(Failure("service", code, "why"),)))
    Standing(endpoint).concluded(Result(OperationStatus.UP_TO_DATE))
    status = load_status(endpoint.paths.status).status
    assert (status.last_operation_status, status.last_error_code) == ("critical", Code.ROLLBACK_FAILED)
    assert status.last_error_message == said


def test_what_is_left_out_is_said_without_being_a_failure(endpoint: Endpoint) -> None:
    Standing(endpoint).concluded(Result(OperationStatus.UP_TO_DATE, notes=("ui waits", "probe is not there")))
    status = load_status(endpoint.paths.status).status
    assert (status.last_error_code, status.last_error_message) == (Code.OK, "ui waits; probe is not there")


def test_the_next_check_comes_earlier_and_never_later_than_it_was(endpoint: Endpoint) -> None:
    standing = Standing(endpoint)
    standing.no_later_than(1800)
    first = load_status(endpoint.paths.status).status.next_check_time
    standing.no_later_than(3600)
    assert load_status(endpoint.paths.status).status.next_check_time == first
    standing.no_later_than(60)
    second = load_status(endpoint.paths.status).status.next_check_time
    assert first is not None
    assert second is not None
    assert second < first
