"""Checks that are answered without a parser: the same answers, to the same clients, as with one (design §9)."""

from __future__ import annotations

import itertools
import json
import socket
from pathlib import Path
from typing import Self

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.server import RunningServer, check_body, running, wait_until
from support.trees import Tree

from repo_server.core.wire import SECRET_HEADER
from repo_server.web.heads import LONGEST, MOST, Head, Heads

OLD, NEW = "old-secret-0123456789", "new-secret-0123456789"
HAS, LACKS = "1.2.3", "0.0.1"


def ask(version: str, *lines: str, host: str = "one.example") -> bytes:
    """Return a whole check by a device that has this version; bodies of equal length have equal heads."""
    body = json.dumps(check_body(components=[{"name": "service", "version": version}])).encode()
    head = [f"POST /v1/check HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}", *lines]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


class Client:
    """One connection."""

    def __init__(self, server: RunningServer) -> None:
        self._socket = socket.create_connection(("127.0.0.1", server.port), timeout=30)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._read = self._socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._read.close()
        self._socket.close()

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        """Read one answer: status, headers, body."""
        status = int(self._read.readline().split()[1])
        headers = {}
        while line := self._read.readline().strip().decode():
            name, _, value = line.partition(": ")
            headers[name.lower()] = value
        return status, headers, self._read.read(int(headers["content-length"]))

    def offered(self) -> list[str]:
        """Read an answer; return the URLs that it offers."""
        status, _, body = self.answer()
        assert status == 200, body
        return [update["url"] for update in json.loads(body)["updates"]]

    def ends(self) -> bool:
        return self._read.read(1) == b""


def url(host: str = "one.example") -> list[str]:
    return [f"http://{host}/v1/packages/service-linux-amd64-1.2.3.tar.gz"]


def known(server: RunningServer, request: bytes) -> None:
    """Have the server answer a request, so that it knows the head."""
    with Client(server) as client:
        client.send(request)
        assert client.answer()[0] == 200


def test_the_same_head_with_another_body_is_another_request(server: RunningServer) -> None:
    with Client(server) as client:
        for version in (LACKS, HAS, LACKS, LACKS, HAS):
            client.send(ask(version))
            assert client.offered() == (url() if version == LACKS else [])


def test_another_host_gets_urls_of_its_own(server: RunningServer) -> None:
    for host in ("one.example", "two.example", "one.example", "two.example:8470"):
        known(server, ask(LACKS, host=host))
        with Client(server) as client:
            client.send(ask(LACKS, host=host))
            assert client.offered() == url(host)


def test_one_host_is_needed_also_where_urls_do_not_come_from_it(tree: Tree, tmp_path: Path) -> None:
    with (
        running(tree.root, tmp_path / "state", "--base-url", "https://base.example") as server,
        Client(server) as client,
    ):
        client.send(ask(LACKS, "Host: two.example"))
        status, _, body = client.answer()
    assert (status, json.loads(body)["error_code"]) == (400, "duplicate_header")


def test_many_connections_that_ask_at_once_get_their_own_answers(server: RunningServer) -> None:
    known(server, ask(LACKS))
    clients = [Client(server) for _ in range(60)]
    for _ in range(3):
        for number, client in enumerate(clients):
            client.send(ask(LACKS if number % 3 else HAS))
        for number, client in enumerate(clients):
            assert client.offered() == (url() if number % 3 else [])
    for client in clients:
        with client:
            pass


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    versions=st.lists(st.sampled_from([HAS, LACKS]), min_size=1, max_size=5),
    cuts=st.lists(st.integers(1, 900), max_size=6),
)
def test_however_requests_are_cut_into_pieces_the_answers_are_the_same(
    server: RunningServer, versions: list[str], cuts: list[int]
) -> None:
    sent = b"".join(ask(version) for version in versions)
    edges = [0, *sorted({cut for cut in cuts if cut < len(sent)}), len(sent)]
    with Client(server) as client:
        for start, end in itertools.pairwise(edges):
            client.send(sent[start:end])
        for version in versions:
            assert client.offered() == (url() if version == LACKS else [])


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [(b"{", 400, "malformed_json"), (b"", 400, "empty_body"), (b"[]", 422, "invalid_request")],
)
def test_a_known_head_does_not_vouch_for_a_body(server: RunningServer, body: bytes, status: int, code: str) -> None:
    good = ask(LACKS)
    known(server, good)
    head = good[: good.index(b"\r\n\r\n") + 4]
    bad = body.ljust(len(good) - len(head))
    with Client(server) as client:
        for request in (good, head + bad, good):
            client.send(request)
        answers = [client.answer() for _ in range(3)]
    assert [answer[0] for answer in answers] == [200, status, 200]
    assert json.loads(answers[1][2])["error_code"] == code


def test_what_follows_a_known_request_is_still_parsed(server: RunningServer) -> None:
    good = ask(LACKS)
    known(server, good)
    with Client(server) as client:
        client.send(good)
        assert client.offered() == url()
        client.send(good + b"NOT HTTP AT ALL\r\n\r\n")
        assert client.offered() == url()
        assert client.answer()[0] == 400
        assert client.ends()


def test_a_longer_body_than_the_head_says_is_the_beginning_of_something_else(server: RunningServer) -> None:
    """What a proxy would call request smuggling."""
    good = ask(LACKS)
    known(server, good)
    with Client(server) as client:
        client.send(good + b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" + good)
        assert client.offered() == url()
        assert client.answer()[2] == b'{"status":"ok"}'
        assert client.offered() == url()


def test_a_secret_that_is_taken_back_is_refused_with_a_known_head_too(tree: Tree, tmp_path: Path) -> None:
    secrets = tmp_path / "secrets"
    secrets.write_text(f"old:{OLD}\nnew:{NEW}\n")
    secrets.chmod(0o600)
    asked = ask(LACKS, f"{SECRET_HEADER}: {OLD}")
    with running(tree.root, tmp_path / "state", "--secrets", str(secrets)) as server, Client(server) as client:
        for _ in range(3):
            client.send(asked)
            assert client.answer()[0] == 200
        secrets.write_text(f"new:{NEW}\n")

        def refused() -> bool:
            client.send(asked)
            return client.answer()[0] == 401

        wait_until(refused, "the old secret is refused")
        audit = [json.loads(line) for line in (tmp_path / "state" / "audit.log").read_text().splitlines()]
    answered = [line for line in audit if line["path"] == "/v1/check" and line["status"] == 200]
    assert {line["auth_id"] for line in answered} == {"secret:old"}


def test_a_client_that_keeps_asking_is_told_that_the_server_stops(tree: Tree, tmp_path: Path) -> None:
    with running(tree.root, tmp_path / "state") as server, Client(server) as client:
        client.send(ask(LACKS))
        assert client.answer()[0] == 200
        server.process.terminate()
        answers = 0
        while True:
            client.send(ask(LACKS))
            status, headers, _ = client.answer()
            assert status == 200
            if headers.get("connection") == "close":
                break
            answers += 1
            assert answers < 100_000
        assert client.ends()
        assert server.process.wait(30) == 0


def head_of(length: int) -> Head:
    return Head([], {}, length)


def read(number: int, body: bytes = b"") -> bytes:
    return b"POST /v1/check HTTP/1.1\r\nx: %d\r\n\r\n" % number + body


def test_heads_are_remembered_in_bounded_memory() -> None:
    heads = Heads()
    for number in range(3 * MOST):
        heads.remember(read(number), head_of(0))
        assert len(heads) <= MOST
    assert heads.of(read(3 * MOST - 1)) is not None
    heads.remember(read(0).replace(b"x:", b"x" * LONGEST + b":"), head_of(0))
    assert heads.of(read(0).replace(b"x:", b"x" * LONGEST + b":")) is None


@given(body=st.binary(max_size=40), length=st.integers(0, 60), more=st.binary(max_size=40))
def test_a_read_is_one_request_or_not_a_known_one(body: bytes, length: int, more: bytes) -> None:
    heads = Heads()
    heads.remember(read(1, body), head_of(length))
    whole = length == len(body)
    assert len(heads) == whole
    found = heads.of(read(1, body + more))
    assert (found is not None) == (whole and not more)
    if found is not None:
        assert read(1, body)[found[1] :] == body
