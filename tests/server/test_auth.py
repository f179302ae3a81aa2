"""Agents' secrets and operators' tokens (NFR-SRV-010, design §5)."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from support.server import RunningServer, check_body, running, wait_until
from support.serving import SERVICE
from support.trees import Tree

from repo_server.access.auth import CredentialsInvalid, KeyFile, Role, digest, parse_secrets
from repo_server.access.tokens import add_token, list_tokens, parse_tokens
from repo_server.cli import main
from repo_server.core.wire import SECRET_HEADER

OLD, NEW = "old-secret-0123456789", "new-secret-0123456789"
OPERATOR = ["/v1/problems", "/v1/packages", "/v1/devices", "/v1/devices/6f1c2a34-0000-4000-8000-000000000001"]
AGENT = [f"/v1/packages/{SERVICE}", f"/tree/{SERVICE}", "/metadata/1.root.json"]


def private(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o600)
    return path


def token(state: Path, *arguments: str) -> Result:
    """Run ``repo-server token`` within this process: a start of Python is most of its time."""
    return CliRunner().invoke(main, ["token", *arguments, "--state", str(state)])


def asks(server: RunningServer, secret: str | None) -> int:
    return server.post("/v1/check", check_body(), None if secret is None else {SECRET_HEADER: secret}).status


def test_secrets_are_read_with_comments_and_blank_lines() -> None:
    keys = parse_secrets(f"# two\n\nold:{OLD}\n new:with:colons:and:more \n".encode(), "secrets")
    assert (keys.match(OLD), keys.match("with:colons:and:more"), keys.match("x")) == ("old", "new", None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "holds no secret"),
        ("# nothing\n", "holds no secret"),
        ("just-a-secret-0123456789", "expected id:secret"),
        (":no-id-0123456789", "expected id:secret"),
        ("b\u00e4d:0123456789abcdef", "expected id:secret"),
        ("id:", "printable ASCII"),
        ("id:   ", "printable ASCII"),
        ("id: hunter2", "printable ASCII"),
        ("id:hunter2 with \x07 bell", "printable ASCII"),
        ("id:hunter2 p\u00e4ss", "printable ASCII"),
        (f"a:{OLD}\na:{NEW}", "there twice"),
    ],
)
def test_a_malformed_secrets_file_is_refused_without_showing_a_secret(text: str, expected: str) -> None:
    with pytest.raises(CredentialsInvalid, match=expected) as caught:
        parse_secrets(text.encode(), "secrets")
    assert "hunter2" not in str(caught.value)
    assert OLD not in str(caught.value)


def test_a_file_that_is_too_long_is_refused_and_not_cut_off_within_a_secret(tmp_path: Path) -> None:
    path = tmp_path / "secrets"
    path.write_text("# " + "x" * 1024 * 1024 + "\na:0123456789abcdef\n")
    path.chmod(0o600)
    with pytest.raises(CredentialsInvalid, match="more than 1048576 bytes"):
        KeyFile(path, parse_secrets).load()


def test_a_short_secret_is_taken_and_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    keys = parse_secrets(b"a:hunter2", "secrets")
    assert keys.match("hunter2") == "a"
    assert "hunter2" not in "".join(keys.doubts)
    file = KeyFile(private(tmp_path / "secrets", "a:hunter2\n"), parse_secrets)
    file.load()
    assert "'a'" in caplog.text
    assert "hunter2" not in caplog.text


_TOKEN = b'[{"name":"a","sha256":"%b","created":"2026-01-01T00:00:00Z"}]'


@pytest.mark.parametrize("data", [b"", b"{}", b"[1]", _TOKEN % b"zz", _TOKEN % b"ab"])
def test_a_damaged_tokens_file_is_refused(data: bytes) -> None:
    with pytest.raises(CredentialsInvalid, match="damaged"):
        parse_tokens(data, "tokens.json")


def test_only_hashes_are_kept() -> None:
    assert digest(OLD) in parse_secrets(f"a:{OLD}".encode(), "x").digests.values()


def test_agents_need_a_secret_and_operators_a_token(tree: Tree, tmp_path: Path) -> None:
    """Several secrets are active at once; each endpoint refuses everything else with 401."""
    secrets = private(tmp_path / "secrets", f"old:{OLD}\nnew:{NEW}\n")
    state = tmp_path / "state"
    value = token(state, "add", "ana").stdout.strip()
    with running(tree.root, state, "--secrets", str(secrets), "--limit-failures", "off") as server:
        assert [asks(server, secret) for secret in (OLD, NEW, None, "", "wrong", OLD.upper(), f"{OLD} x")] == [
            200, 200, 401, 401, 401, 401, 401,
        ]  # fmt: skip
        for path in AGENT:
            assert server.get(path).status == 401
            assert server.get(path, {"authorization": f"Bearer {value}"}).status == 401
            assert server.get(path, {SECRET_HEADER: NEW}).status == 200
        refused = server.post("/v1/status", {})
        assert (refused.status, refused.headers["www-authenticate"].split()[0]) == (401, SECRET_HEADER)
        for path in OPERATOR:
            refused = server.get(path)
            assert (refused.status, refused.json()["error_code"]) == (401, "unauthorized")
            assert refused.headers["www-authenticate"].startswith("Bearer")
            for credentials in (f"Bearer {OLD}", "Bearer", "Bearer ", f"Basic {value}", value, f"Bearer {value}x"):
                assert server.get(path, {"authorization": credentials}).status == 401
            assert server.get(path, {"authorization": f"bearer {value}"}).status in {200, 503}
            assert server.get(path, {SECRET_HEADER: OLD}).status == 401
        assert server.get("/healthz").status == server.get("/readyz").status == 200
        duplicate = server.http.request(
            "POST", f"{server.url}/v1/check", body=json.dumps(check_body()), headers=twice(SECRET_HEADER, OLD, "x")
        )
        assert duplicate.status in {400, 401}
    assert not [kept for kept in (OLD, NEW, value) if kept in server.log]
    assert not [path for path in state.rglob("*") if path.is_file() and value in path.read_text(errors="replace")]


def twice(name: str, first: str, second: str) -> object:
    from urllib3 import HTTPHeaderDict

    headers = HTTPHeaderDict({name: first})
    headers.add(name, second)
    return headers


def test_a_tokens_role_decides_what_it_may_do(tree: Tree, tmp_path: Path) -> None:
    """403, not 401: who asks is known. Agents' secrets are no tokens."""
    secrets = private(tmp_path / "secrets", f"a:{OLD}\n")
    state = tmp_path / "state"
    values = [token(state, "add", role, "--role", role).stdout.strip() for role in ("read", "operate")]
    with running(tree.root, state, "--secrets", str(secrets)) as server:
        bearers = [{"authorization": f"Bearer {value}"} for value in values]
        assert [server.get("/v1/problems", bearer).status for bearer in bearers] == [200, 200]
        answers = [server.request("POST", "/v1/rescan", headers=bearer) for bearer in (*bearers, {SECRET_HEADER: OLD})]
        assert [answer.status for answer in answers] == [403, 202, 401]
        assert answers[0].json()["error_code"] == "forbidden"


def test_the_tree_can_be_public_while_the_rest_is_not(tree: Tree, tmp_path: Path) -> None:
    secrets = private(tmp_path / "secrets", f"a:{OLD}\n")
    with running(tree.root, tmp_path / "state", "--secrets", str(secrets), "--public-tree") as server:
        assert [server.get(path).status for path in AGENT] == [401, 200, 200]
        assert asks(server, None) == 401


def test_secrets_are_rotated_without_a_restart(tree: Tree, tmp_path: Path) -> None:
    """The old secret and the new one are active together; a broken file leaves the last good one in force."""
    secrets = private(tmp_path / "secrets", f"old:{OLD}\n")
    with running(tree.root, tmp_path / "state", "--secrets", str(secrets)) as server:
        assert (asks(server, OLD), asks(server, NEW)) == (200, 401)
        private(secrets, f"old:{OLD}\nnew:{NEW}\n")
        wait_until(lambda: asks(server, NEW) == 200, "the new secret is in force", server.log_path)
        assert asks(server, OLD) == 200
        private(secrets, "broken")
        wait_until(lambda: "not reloaded" in server.log, "the broken file is noticed", server.log_path)
        assert asks(server, NEW) == 200
        assert [item["code"] for item in server.ready()["conditions"]] == ["secrets_not_reloaded"]
        assert str(secrets) not in server.get("/readyz").data.decode(), "it names paths to everybody"
        secrets.unlink()
        private(secrets, f"new:{NEW}\n")
        wait_until(lambda: asks(server, OLD) == 401, "the old secret is gone", server.log_path)
        assert asks(server, NEW) == 200
        assert server.ready()["conditions"] == []
        secrets.chmod(0o644)
        wait_until(lambda: server.ready()["conditions"], "a file that others can read is said", server.log_path)
        assert asks(server, NEW) == 200


def test_tokens_are_added_listed_and_revoked_while_the_server_runs(tree: Tree, tmp_path: Path) -> None:
    secrets = private(tmp_path / "secrets", f"a:{OLD}\n")
    state = tmp_path / "state"
    with running(tree.root, state, "--secrets", str(secrets)) as server:
        value = json.loads(token(state, "add", "ana", "--json").stdout)["token"]
        bearer = {"authorization": f"Bearer {value}"}
        wait_until(lambda: server.get("/v1/problems", bearer).status == 200, "the token is in force", server.log_path)
        again = token(state, "add", "ana")
        assert (again.exit_code, again.stdout) == (1, "")
        assert "already" in again.stderr
        assert token(state, "list").stdout.startswith("ana\tread\t")
        assert [item["name"] for item in json.loads(token(state, "list", "--json").stdout)] == ["ana"]
        assert token(state, "revoke", "ana").exit_code == 0
        wait_until(lambda: server.get("/v1/problems", bearer).status == 401, "the token is gone", server.log_path)
        assert token(state, "revoke", "ana").exit_code == 1
    assert (state / "tokens.json").stat().st_mode & 0o777 == 0o600
    assert list_tokens(state) == []


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (
            ["list", "--state", "nowhere"],
            1,
            "nowhere: No such file or directory; expected the state folder of a server",
        ),
        (["revoke", "ana", "--state", "nowhere"], 1, "nowhere: No such file"),
        (["list", "--state", "open"], 3, "chmod 0700"),
        (["add", "ana", "--state", "open"], 3, "chmod 0700"),
        (["revoke", "ana", "--state", "open"], 3, "chmod 0700"),
        (["list", "--state", "file"], 2, "is a file"),
        (["add", "ana", "--state", "file/below"], 1, "cannot be made"),
        (["add", "bad name", "--state", "fresh"], 2, "expected letters, digits"),
        (["add", "ana", "--state", "fresh", "--role", "boss"], 2, "'read', 'operate'"),
        (["list", "--state", "damaged"], 2, "is damaged"),
        (["revoke", "ana", "--state", "empty"], 1, "no token 'ana'"),
        (["list", "--state", "empty"], 0, ""),
    ],
)
def test_every_verb_of_tokens_ends_with_the_code_that_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, expected: str
) -> None:
    """Design §11: 1 failed, 2 wrong usage, 3 refused for safety."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "open").mkdir(mode=0o755)
    for name in ("damaged", "empty"):
        (tmp_path / name).mkdir(mode=0o700)
    private(tmp_path / "damaged" / "tokens.json", "[{}]")
    private(tmp_path / "file", "")
    ended = CliRunner().invoke(main, ["token", *arguments])
    assert (ended.exit_code, expected in ended.output) == (code, True), ended.output
    assert not (tmp_path / "fresh").exists()


def test_without_secrets_on_loopback_everything_is_open(tree: Tree, tmp_path: Path) -> None:
    with running(tree.root, tmp_path / "state") as server:
        assert [server.get(path).status for path in (*AGENT, *OPERATOR[:2])] == [200] * 5
        assert asks(server, "anything") == 200


def test_tokens_are_dated_by_the_clock_that_is_given(tmp_path: Path) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    add_token(tmp_path, "ana", Role.OPERATE, now)
    assert [(item.name, item.role, item.created) for item in list_tokens(tmp_path)] == [("ana", "operate", now)]
