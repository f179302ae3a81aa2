"""How often who may ask (NFR-SRV-009)."""

from __future__ import annotations

import json
import random
import socket
import uuid
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.server import RunningServer, check_body, running
from support.trees import Tree
from urllib3 import BaseHTTPResponse

from repo_server.access.buckets import Buckets, Rate
from repo_server.access.limits import Limits, Rates
from repo_server.core.wire import SECRET_HEADER
from repo_server.settings import read_settings
from repo_server.web.http import HttpError

SECRET, OTHER = "first-secret-0123456789", "second-secret-0123456789"
BEHIND = ("--trusted-proxy", "127.0.0.1")


@given(st.integers(1, 20), st.integers(1, 60), st.lists(st.floats(0, 30), max_size=200))
@settings(deadline=None)
def test_in_no_window_is_more_let_through_than_the_bucket_and_what_flows_in(
    count: int, seconds: int, pauses: list[float]
) -> None:
    buckets = Buckets(Rate(count, float(seconds)))
    taken: list[float] = []
    now = 1000.0
    for pause in pauses:
        now += pause
        wait = buckets.take("x", now)
        if wait:
            assert buckets.take("x", now + wait + 0.001) == 0
            now += wait + 0.001
        taken.append(now)
    for first in range(len(taken)):
        for last in range(first, len(taken)):
            allowed = count + (taken[last] - taken[first]) * count / seconds
            assert last - first + 1 <= allowed + 0.01


def test_a_full_bucket_gives_its_whole_burst_at_once() -> None:
    buckets = Buckets(Rate(60, 60.0))
    assert [bool(buckets.take("x", 5.0)) for _ in range(61)] == [False] * 60 + [True]
    assert buckets.take("y", 5.0) == 0
    assert buckets.take("x", 6.1) == 0


def test_keys_that_are_silent_are_forgotten_and_their_number_is_bounded() -> None:
    buckets = Buckets(Rate(2, 10.0), most=100)
    for number in range(10_000):
        buckets.take(number, number * 0.001)
    assert len(buckets) <= 200
    for number in range(10):
        buckets.take(number, 1000.0 + 20.0 * number)
    assert len(buckets) <= 3


def test_the_defaults_let_five_thousand_devices_behind_one_address_start_at_once() -> None:
    """Ten requests each, within a second; an endless loop in one of them is stopped."""
    defaults = read_settings({"tree": "/t", "state": "/s"}, {})
    rates = Rates(
        Rate.parse(defaults.limit_address), Rate.parse(defaults.limit_secret), Rate.parse(defaults.limit_device),
        Rate.parse(defaults.limit_failures),
    )  # fmt: skip
    limits = Limits(rates, random.random)
    for turn in range(10):
        for device in range(5000):
            now = 1000.0 + turn * 0.1
            limits.address("203.0.113.9", now)
            limits.secret("fleet", now)
            limits.device("203.0.113.9", str(device), now)
    for _ in range(51):
        limits.device("203.0.113.9", "1", 1001.0)
    with pytest.raises(HttpError) as caught:
        limits.device("203.0.113.9", "1", 1001.0)
    assert (caught.value.status, caught.value.code) == (429, "rate_limited")


def secrets_file(folder: Path) -> tuple[str, str]:
    path = folder / "secrets"
    path.write_text(f"first:{SECRET}\nsecond:{OTHER}\n")
    path.chmod(0o600)
    return "--secrets", str(path)


def ask(server: RunningServer, address: str, secret: str = SECRET, **fields: Any) -> BaseHTTPResponse:
    return server.post("/v1/check", check_body(**fields), {SECRET_HEADER: secret, "x-forwarded-for": address})


def statuses(server: RunningServer, times: int, *arguments: str, **fields: Any) -> list[int]:
    return [ask(server, *arguments, **fields).status for _ in range(times)]


def test_a_device_a_secret_and_an_address_have_limits_of_their_own(tree: Tree, tmp_path: Path) -> None:
    limits = ("--limit-device", "3/1h", "--limit-secret", "12/1h", "--limit-address", "6/1h")
    options = (*BEHIND, *secrets_file(tmp_path), *limits)
    one, two = str(uuid.UUID(int=1)), str(uuid.UUID(int=2))
    with running(tree.root, tmp_path / "state", *options) as server:
        assert statuses(server, 4, "203.0.113.1", device_id=one) == [200, 200, 200, 429]
        assert statuses(server, 1, "203.0.113.1", device_id=two) == [200], "another device"
        assert statuses(server, 1, "203.0.113.2", device_id=one) == [200], "who else holds the secret blocks nobody"
        assert statuses(server, 2, "203.0.113.1") == [200, 429], "the address has asked six times"
        refused = ask(server, "203.0.113.1")
        assert (refused.json()["error_code"], int(refused.headers["retry-after"]) > 0) == ("rate_limited", True)
        assert server.get("/healthz", {"x-forwarded-for": "203.0.113.1"}).status == 200, "a balancer is not limited"
        assert statuses(server, 6, "203.0.113.3") == [200] * 5 + [429], "the secret has been used twelve times"
        assert statuses(server, 1, "203.0.113.4", OTHER) == [200], "another secret"


def test_an_address_that_nobody_named_a_proxy_cannot_be_borrowed(tree: Tree, tmp_path: Path) -> None:
    """Without ``--trusted-proxy`` a forged header gives nobody a fresh bucket."""
    options = (*secrets_file(tmp_path), "--limit-device", "2/1h")
    one = str(uuid.UUID(int=1))
    with running(tree.root, tmp_path / "state", *options) as server:
        found = [ask(server, f"203.0.113.{n}", device_id=one).status for n in range(4)]
    assert found == [200, 200, 429, 429]


def test_whoever_guesses_is_not_listened_to_and_locks_out_nobody_who_knows(tree: Tree, tmp_path: Path) -> None:
    options = (*BEHIND, *secrets_file(tmp_path), "--limit-failures", "3/1h")
    with running(tree.root, tmp_path / "state", *options) as server:
        assert statuses(server, 4, "203.0.113.1", "guess") == [401, 401, 401, 429]
        assert statuses(server, 1, "203.0.113.1") == [429], "a right guess looks like a wrong one"
        assert statuses(server, 1, "203.0.113.2") == [200]
        assert statuses(server, 4, "203.0.113.2", "old secret") == [401, 401, 401, 429]
        assert statuses(server, 2, "203.0.113.2") == [200, 200], "thousands behind that address know the secret"
        operator = {"authorization": "Bearer x", "x-forwarded-for": "203.0.113.3"}
        assert [server.get("/v1/problems", operator).status for _ in range(4)] == [401, 401, 401, 429]


def pipelined(server: RunningServer, requests: list[bytes]) -> list[bytes]:
    """Send requests on one connection without waiting, and return the answers."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        answers: list[bytes] = []
        for start in range(0, len(requests), 100):
            part = requests[start : start + 100]
            connection.sendall(b"".join(part))
            received = b""
            while received.count(b"HTTP/1.1 ") < len(part) or not received.endswith(b"}"):
                received += connection.recv(1 << 20)
            answers += received.split(b"HTTP/1.1 ")[1:]
        return answers


def request(number: int) -> bytes:
    body = json.dumps(check_body(device_id=str(uuid.UUID(int=number + 1)))).encode()
    head = f"POST /v1/check HTTP/1.1\r\nhost: x\r\nx-forwarded-for: 203.0.113.1\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def test_a_site_of_five_thousand_devices_is_served_and_its_excess_is_spread_over_time(
    tree: Tree, tmp_path: Path
) -> None:
    """The real server; the excess is told to come back at different times, so that it does not come back at once."""
    with running(tree.root, tmp_path / "state", *BEHIND) as server:
        answers = pipelined(server, [request(number) for number in range(5000)])
        assert {answer[:3] for answer in answers} == {b"200"}
    with running(tree.root, tmp_path / "state", *BEHIND, "--limit-address", "100/1h") as server:
        answers = pipelined(server, [request(number) for number in range(300)])
    refused = [answer for answer in answers if answer.startswith(b"429")]
    assert len(refused) == 200
    waits = [int(answer.partition(b"retry-after: ")[2].partition(b"\r\n")[0]) for answer in refused]
    assert len(set(waits)) > 20
    assert max(waits) - min(waits) <= 61
