"""``POST /v1/check`` of the real server (FR-UPD-003, FR-SRV-001, L50 to L52)."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

import pytest
from support.server import RunningServer, check_body, running, wait_until
from support.serving import BETA, NOBODY_YET, SERVICE
from support.trees import Tree


def test_an_offer_has_every_field_of_the_wire(server: RunningServer) -> None:
    """FR-SRV-001: name, version, url, hash, signature, release notes and dependencies; L11: whose signature."""
    answer = server.check()
    [update] = answer["updates"]
    assert (update["name"], update["version"], update["action"]) == ("service", "1.2.3", "update")
    assert update["url"] == f"{server.url}/v1/packages/{SERVICE}"
    assert (update["path"], update["size"], len(update["hash_sha256"])) == (SERVICE, 1024 * 1024, 64)
    assert update["signatures"] == [{"key_id": update["key_id"], "signature": update["signature"]}]
    assert update["release_notes_url"] == "https://example.com/1.2.3"
    assert update["dependencies"] == []
    assert (answer["channel"], answer["channel_source"], answer["next_check_seconds"]) == ("stable", "agent", 14400)
    assert [(reason["name"], reason["code"]) for reason in answer["reasons"]] == [("service", "offered")]
    assert server.http.request("GET", update["url"]).status == 200


def test_nothing_to_do_is_an_empty_list_with_a_reason(server: RunningServer) -> None:
    answer = server.check(components=[{"name": "service", "version": "1.2.3"}])
    assert answer["updates"] == []
    assert answer["reasons"][0]["code"] == "up_to_date"


def test_a_recalled_version_is_moved_off(server: RunningServer) -> None:
    """L51: a device on a recalled version is offered the highest eligible one."""
    answer = server.check(components=[{"name": "service", "version": "1.1.0"}])
    assert "recalled" in answer["reasons"][0]["detail"]
    assert server.offered(components=[{"name": "service", "version": "1.1.0"}]) == {"service": "1.2.3"}


def test_the_channel_comes_from_the_policy_before_the_agent(server: RunningServer) -> None:
    """L31: the site's assignment counts more than the agent's configuration."""
    assert server.offered(site_id="LAB") == {"service": "1.3.0"}
    assert server.check(site_id="lab")["channel_source"] == "site"
    assert server.offered(site_id="elsewhere") == {"service": "1.2.3"}
    assert server.offered(release_channel="beta") == {"service": "1.3.0"}


def test_components_unknown_versions_and_other_fields_are_accepted(server: RunningServer) -> None:
    """Unknown fields come from newer agents; a component without a version wants its first."""
    components = [
        {"name": "service", "version": ""},
        {"name": "ui", "version": "nonsense"},
        {"name": "fax", "version": "1"},
    ]
    answer = server.check(components=components, from_the_future={"x": [1]})
    assert {update["name"]: update["version"] for update in answer["updates"]} == {"service": "1.2.3", "ui": "2.0.0"}
    assert {reason["name"]: reason["code"] for reason in answer["reasons"]}["fax"] == "unknown_component"


@pytest.mark.parametrize("components", [[], [{"name": "service", "version": "1.2.3"}]])
def test_a_device_that_needs_nothing_gets_a_whole_answer(server: RunningServer, components: list[object]) -> None:
    answer = server.check(components=components)
    assert set(answer) == {"updates", "channel", "channel_source", "reasons", "next_check_seconds", "catalogue"}


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"os": "plan9"}, "invalid_os"),
        ({"arch": "mips"}, "invalid_arch"),
        ({"release_channel": "nightly"}, "invalid_channel"),
        ({"device_id": "not-a-uuid"}, "invalid_device_id"),
        ({"device_id": str(uuid.UUID(int=0))}, "invalid_device_id"),
        ({"components": [{"name": "ui", "version": "1"}, {"name": "ui", "version": "2"}]}, "duplicate_component"),
        ({"components": [{"name": f"c{n}", "version": "1.0.0"} for n in range(65)]}, "invalid_request"),
        ({"components": "service"}, "invalid_request"),
        ({"components": [["service", "1"]]}, "invalid_request"),
        ({"components": [{"name": "service"}]}, "invalid_request"),
        ({"components": [{"name": 5, "version": "1"}]}, "invalid_request"),
        ({"os": None}, "invalid_request"),
        ({"updater_version": 1}, "invalid_request"),
        ({"os": "x" * 1000}, "invalid_request"),
        ({"attributes": []}, "invalid_request"),
    ],
)
def test_what_is_impossible_is_refused_with_a_code(
    server: RunningServer, changes: dict[str, object], code: str
) -> None:
    """EH-SRV-001: a structured error, status 422."""
    response = server.post("/v1/check", check_body(**changes))
    assert (response.status, response.json()["error_code"]) == (422, code)
    assert response.json()["message"]


def test_every_required_field_is_required(server: RunningServer) -> None:
    """FR-UPD-003: updater_version, os, arch, release_channel and components."""
    for name in ("updater_version", "os", "arch", "release_channel", "components"):
        body = check_body()
        del body[name]
        response = server.post("/v1/check", body)
        assert (response.status, response.json()["error_code"]) == (422, "invalid_request")
        assert name in response.json()["message"]


@pytest.mark.parametrize(
    "host", ["evil.example/x", "a b", "user@host", "host:port", "[::1", "x\\y", "a" * 300, '"', "<script>", "h:123456"]
)
def test_a_hostile_host_header_never_gets_into_an_answer(server: RunningServer, host: str) -> None:
    response = server.post("/v1/check", check_body(), {"host": host})
    assert (response.status, response.json()["error_code"]) == (400, "invalid_host")


@pytest.mark.parametrize("host", ["updates.example.com", "updates.example.com:8443", "10.1.2.3:80", "[2001:db8::1]:80"])
def test_urls_begin_with_the_host_that_the_agent_asked(server: RunningServer, host: str) -> None:
    response = server.post("/v1/check", check_body(), {"host": host})
    assert response.json()["updates"][0]["url"] == f"http://{host}/v1/packages/{SERVICE}"


def test_a_ramp_is_decided_for_each_device(tmp_path: Path) -> None:
    """L14: equal devices with different ids get different answers while a ramp is under way."""
    tree = Tree(tmp_path / "tree")
    tree.add("probe-linux-amd64-3.0.0.tar.gz", rollout='{"start": "2020-01-01T00:00:00Z", "from": 0.5, "to": 0.5}')
    wanted = [{"name": "probe", "version": "1.0.0"}]
    with running(tree.root, tmp_path / "state") as server:
        answers = [server.offered(device_id=str(uuid.UUID(int=n)), components=wanted) for n in range(1, 101)]
    taken = sum("probe" in answer for answer in answers)
    assert 25 < taken < 75


def test_promotion_reaches_the_next_answer(tmp_path: Path) -> None:
    """L19: rewriting ``.channel`` is all; no answer from before is remembered after it."""
    tree = Tree(tmp_path / "tree")
    tree.add(SERVICE)
    path = tree.add(BETA, channel="beta")
    with running(tree.root, tmp_path / "state", "--base-url", "https://updates.example.com/repo/") as server:
        assert server.offered() == {"service": "1.2.3"}
        path.with_name(f"{BETA}.channel").write_text("stable\n")
        wait_until(lambda: server.offered() == {"service": "1.3.0"}, "the promotion is served", server.log_path)
        assert server.check()["updates"][0]["url"] == f"https://updates.example.com/repo/v1/packages/{BETA}"
        path.with_name(f"{BETA}.rollout").write_text(NOBODY_YET)
        wait_until(lambda: server.offered() == {"service": "1.2.3"}, "the ramp is served", server.log_path)
        path.with_name(f"{BETA}.blocked").write_text('{"reason": "bad"}')
        on_it = [{"name": "service", "version": "1.3.0"}]
        wait_until(lambda: server.check(components=on_it)["updates"], "the recall is served", server.log_path)
        assert server.check(components=on_it)["updates"][0]["action"] == "rollback"


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"{}", {}),
        (b"", {}),
        (b"nonsense", {}),
        (json.dumps(check_body()).encode(), {}),
        (json.dumps(check_body(os="plan9")).encode(), {}),
        (json.dumps(check_body(device_id="x")).encode(), {}),
        (json.dumps(check_body()).encode(), {"host": "a b"}),
        (json.dumps(check_body()).encode(), {"content-type": "text/plain"}),
        (json.dumps(check_body()).encode(), {"content-encoding": "gzip"}),
    ],
    ids=range(9),
)
def test_a_check_is_answered_alike_on_the_short_way_and_on_the_long_one(
    server: RunningServer, body: bytes, headers: dict[str, str]
) -> None:
    """A chunked body takes the long way (``protocol``); but for that the requests are the same."""
    headers = {"content-type": "application/json", **headers}
    short = server.request("POST", "/v1/check", body=body, headers=headers)
    long = server.request("POST", "/v1/check", body=iter([body]), headers=headers, chunked=True)
    assert (short.status, short.data) == (long.status, long.data)
    ignored = {"date", "connection"}
    assert {name.lower(): value for name, value in short.headers.items() if name.lower() not in ignored} == {
        name.lower(): value for name, value in long.headers.items() if name.lower() not in ignored
    }
