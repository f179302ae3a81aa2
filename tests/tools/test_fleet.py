"""``repotool devices`` and ``events`` against a real server with tokens (design §7, promise 3)."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from support.operators import Operator
from support.server import RunningServer, running, wait_until
from support.trees import Tree

from repo_server.access.auth import Role
from repo_server.access.tokens import add_token
from repo_server.core.wire import SECRET_HEADER

SECRET = "0123456789abcdef0123456789abcdef"
IDS = [str(uuid.UUID(int=(5 << 120) + n)) for n in range(5)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Run a server with secrets that knows five devices, one of which has failed to update."""
    folder = tmp_path_factory.mktemp("fleet")
    secrets = folder / "secrets"
    secrets.write_text(f"fleet:{SECRET}\n")
    secrets.chmod(0o600)
    (folder / "state").mkdir(mode=0o700)
    token = folder / "token"
    token.write_text(add_token(folder / "state", "ana", Role.READ, datetime.now(UTC)) + "\n")
    token.chmod(0o600)
    tree = Tree(folder / "tree")
    tree.add("service-linux-amd64-1.2.3.tar.gz", b"service")
    headers = {SECRET_HEADER: SECRET}
    with running(tree.root, folder / "state", "--secrets", str(secrets), database=True) as server:
        for n, device_id in enumerate(IDS):
            server.check(headers=headers, device_id=device_id, os=("linux", "windows")[n % 2], site_id="berlin")
        record = {
            "record_id": str(uuid.uuid4()), "component_name": "service", "trigger_source": "schedule",
            "requested_version": "1.2.3", "status": "failed", "error_code": "HEALTH_FAILED",
            "error_message": "no answer after 30 s", "attempt_timestamp": "2026-11-21T18:00:00Z",
        }  # fmt: skip
        assert server.post("/v1/status", {"device_id": IDS[0], "records": [record]}, headers).status == 200
        yield server


@pytest.fixture
def ana(operator: Operator, server: RunningServer) -> Operator:
    """Make an operator who has the token."""
    operator.env |= {"REPOTOOL_SERVER": server.url, "REPOTOOL_TOKEN_FILE": str(server.state.parent / "token")}
    wait_until(lambda: len(operator.facts("devices", "list")["devices"]) == len(IDS), "all are known", server.log_path)
    return operator


def test_devices_are_listed_chosen_and_counted(ana: Operator) -> None:
    assert [row["device_id"] for row in ana.facts("devices", "list", "--os", "windows")["devices"]] == IDS[1::2]
    assert "2 devices" in ana.run(
        "devices", "list", "--os", "windows", "--component", "service=0.0.1", "--seen-after", "1h"
    )
    assert "0 devices" in ana.run("devices", "list", "--seen-before", "30d")
    assert "there are more" in ana.run("devices", "list", "--limit", "2")
    assert len(ana.facts("devices", "list", "--limit", "0")["devices"]) == len(IDS)
    assert "service" in ana.run("devices", "versions", "--site", "berlin")
    counts = {
        (item["component"], item["os_type"]): item["devices"] for item in ana.facts("devices", "versions")["versions"]
    }
    assert counts["service", "linux"] == 3


def test_one_device_is_shown_with_its_reasons_and_its_history(ana: Operator) -> None:
    shown = ana.run("devices", "show", f"win-{IDS[0].upper()}")
    assert IDS[0] in shown
    assert "offered" in shown
    assert "HEALTH_FAILED: no answer after 30 s" in shown
    assert "unknown" not in shown
    assert ana.facts("devices", "show", IDS[0], "--attempts", "1")["device"]["attempts"][0]["status"] == "failed"
    assert "no device" in ana.refused(1, "devices", "show", str(uuid.uuid4()))


def test_failures_and_events_are_shown(ana: Operator, server: RunningServer) -> None:
    assert "no answer after <n> s" in ana.run("devices", "failures")
    assert ana.facts("devices", "failures", "--since", "1h")["signatures"][0]["devices"] == 1
    wait_until(lambda: "first_look" in ana.run("events"), "the first look is told", server.log_path)
    assert ana.facts("events", "--kind", "recall")["events"] == []


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("events", "--kind", "nonsense"), "publish, promote"),
        (("devices", "list", "--component", "service=1"), "expected SemVer"),
        (("devices", "list", "--component", "Service"), "in lower case"),
        (("devices", "list", "--org", "acme"), "UUID"),
        (("devices", "versions", "--site", ""), "empty"),
        (("devices", "failures", "--version", "1"), "expected SemVer"),
        (("devices", "list", "--seen-before", "999999w"), "nor an age"),
        (("devices", "show", "nonsense"), "UUID"),
        (("devices", "list", "--server", "http://[::1"), "expected http"),
    ],
)
def test_a_filter_that_nobody_understands_is_wrong_usage(
    ana: Operator, arguments: tuple[str, ...], expected: str
) -> None:
    """An empty list would look like a fleet without such devices."""
    assert expected in ana.refused(2, *arguments)


def test_json_has_the_keys_that_are_documented(ana: Operator) -> None:
    readme = (Path(__file__).parents[2] / "tools" / "repotool" / "README.md").read_text()
    told = dict(re.findall(r"^\| `(devices \w+|events)` \| ([^|]+) \|$", readme, re.MULTILINE))
    assert set(told) == {"devices list", "devices show", "devices versions", "devices failures", "events"}
    for verb, keys in told.items():
        arguments = [*verb.split(), *([IDS[0]] if verb == "devices show" else [])]
        assert set(ana.facts(*arguments)) == set(keys.split(", ")), verb


def test_what_cannot_be_asked_is_a_sentence_and_an_exit_code(ana: Operator, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("cit_wrong")
    token.chmod(0o644)
    assert "chmod 0600" in ana.refused(3, "devices", "list", "--token-file", str(token))
    token.chmod(0o600)
    assert "401" in ana.refused(1, "devices", "list", "--token-file", str(token))
    assert "in the clear" in ana.refused(3, "devices", "list", "--server", "http://updates.example.com")
    assert "does not answer" in ana.refused(1, "devices", "list", "--server", "http://127.0.0.1:1")
    assert "expected http" in ana.refused(2, "devices", "list", "--server", "ftp://x")
    assert "an age" in ana.refused(2, "devices", "list", "--seen-before", "yesterday")
    assert "which server" in ana.refused(2, "devices", "list", REPOTOOL_SERVER="")
