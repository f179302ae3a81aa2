"""The API's description is generated, checked in, and true of a running server (TR-API-001, FR-SRV-008)."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from support.server import RunningServer, environment, running
from support.serving import SERVICE, fill
from support.trees import Tree

from repo_server.access.auth import Role
from repo_server.access.tokens import add_token
from repo_server.core.wire import SECRET_HEADER
from repo_server.operations import API
from repo_server.routes.application import _BELOW, _EXACT
from repo_server.web.errorcodes import ErrorCode, markdown_table

PACKAGE = Path(__file__).resolve().parents[2] / "repo_server"
SECRET = "a-secret-of-the-tests"
CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,"
    "response_schema_conformance,negative_data_rejection,missing_required_header,unsupported_method,"
    "allow_header_conformance,ignored_auth,positive_data_acceptance,use_after_free,ensure_resource_availability"
)


def test_the_checked_in_description_is_the_generated_one() -> None:
    """After a change: ``repo-server openapi > repo_server/openapi.json``."""
    program = Path(sys.executable).with_name("repo-server")
    printed = subprocess.run([program, "openapi"], capture_output=True, check=True, env=environment()).stdout
    assert printed == (PACKAGE / "openapi.json").read_bytes()


def test_the_served_description_is_the_checked_in_one(server: RunningServer) -> None:
    response = server.get("/v1/openapi.json")
    assert response.json() == json.loads((PACKAGE / "openapi.json").read_text())
    assert server.get("/v1/openapi.json", {"if-none-match": response.headers["etag"]}).status == 304


def test_every_route_is_described_and_everything_described_is_routed() -> None:
    described = {operation.path for operation in API.operations}
    assert set(_EXACT) == {path for path in described if "{" not in path}
    for prefix, _ in _BELOW:
        assert any(path.startswith(prefix) for path in described), prefix
    assert all(path.startswith(tuple(prefix for prefix, _ in _BELOW)) for path in described if "{" in path)


def test_the_table_of_error_codes_in_the_readme_is_the_enum() -> None:
    """After a change: ``python -c "from repo_server.web import errorcodes; print(errorcodes.markdown_table())"``."""
    assert markdown_table() in (PACKAGE / "README.md").read_text()
    assert all(code.meaning.endswith(".") for code in ErrorCode)


def errors_raised() -> Iterator[tuple[str, int, str]]:
    """Yield where, status and code of every error that the source makes."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("HttpError") and len(node.args) > 1:
                status, code = node.args[:2]
                if isinstance(code, ast.Constant):
                    assert isinstance(status, ast.Constant)
                    yield f"{path.relative_to(PACKAGE)}:{node.lineno}", status.value, code.value


def test_every_error_that_the_source_makes_is_in_the_table() -> None:
    """EH-SRV-001: with its status. What is new belongs into repo_server/web/errorcodes.py."""
    table = {str(code): code.status for code in ErrorCode}
    assert [found for found in errors_raised() if table.get(found[2]) != found[1]] == []


def test_every_code_of_the_table_is_one_that_the_source_makes() -> None:
    """And no other stands in the documentation; what ``os`` and the like are called is put together."""
    made = {f"invalid_{what}" for what in ("os", "arch", "channel")}
    for path in PACKAGE.rglob("*.py"):
        if path.name != "errorcodes.py":
            made |= {node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)}
    assert [code for code in ErrorCode if code not in made] == []


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Run a server with secrets, a token, releases and a device that has checked in and reported."""
    folder = tmp_path_factory.mktemp("guarded")
    secrets = folder / "secrets"
    secrets.write_text(f"fleet:{SECRET}\n")
    secrets.chmod(0o600)
    (folder / "state").mkdir(mode=0o700)
    token = add_token(folder / "state", "operator", Role.OPERATE, datetime.now(UTC))
    (folder / "token").write_text(token)
    tree = fill(Tree(folder / "tree"))
    # Of what asks without credentials, which schemathesis does on purpose, 429 would be the right answer otherwise.
    options = ("--secrets", str(secrets), "--limit-failures", "off", "--limit-device", "off")
    with running(tree.root, folder / "state", *options, database=True) as server:
        device = str(uuid.UUID(int=7))
        server.check(headers={SECRET_HEADER: SECRET}, device_id=device, site_id="lab")
        record = {
            "record_id": str(uuid.uuid4()), "component_name": "service", "trigger_source": "manual", "status": "failed",
            "requested_version": "1.2.3", "attempt_timestamp": "2026-11-21T18:00:00Z", "error_code": "DISK_FULL",
        }  # fmt: skip
        report = {"device_id": device, "records": [record]}
        assert server.post("/v1/status", report, {SECRET_HEADER: SECRET}).status == 200
        yield server


def fuzzed(server: RunningServer, folder: Path, *arguments: str) -> None:
    """Let schemathesis try what the description says."""
    (folder / "schemathesis.toml").write_text(
        f"[auth.openapi.agentSecret]\napi_key = {json.dumps(SECRET)}\n"
        f"[auth.openapi.operatorToken]\nbearer = {json.dumps((server.state.parent / 'token').read_text())}\n"
        f"[parameters]\ndevice_id = {json.dumps(str(uuid.UUID(int=7)))}\npath = {json.dumps(SERVICE)}\n"
        'name = "1.root.json"\n[checks.positive_data_acceptance]\n'
        # No schema says beforehand that a file has another ETag, that no byte of a range exists, or (422) that a
        # component is named twice or a device id is a placeholder.
        'expected-statuses = ["2xx", "3xx", 404, 409, 412, 416, 422]\n'
    )
    program = Path(sys.executable).with_name("schemathesis")
    done = subprocess.run(
        [program, "run", f"{server.url}/v1/openapi.json", "--checks", CHECKS, "--seed", "1", "--no-color", *arguments],
        cwd=folder, capture_output=True, text=True, check=False, timeout=3600,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert "Traceback" not in server.log


@pytest.mark.timeout(300)
def test_a_running_server_does_what_its_description_says(guarded: RunningServer, tmp_path: Path) -> None:
    """``make fuzz`` tries much more."""
    fuzzed(
        guarded,
        tmp_path,
        "--phases",
        "coverage,fuzzing,stateful",
        "--max-examples",
        os.environ.get("FUZZ_EXAMPLES", "10"),
    )
