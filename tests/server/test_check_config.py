"""``repo-server check-config`` says everything at once, and agrees with ``serve`` (design §11)."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from support.certificates import make_certificate
from support.databases import TestDatabase
from support.server import environment
from support.trees import Tree

from repo_server.cli import main


def checked(*options: str | Path, env: dict[str, str] | None = None) -> tuple[int, list[str]]:
    """Run it within this process: a start of Python is most of its time."""
    own = dict.fromkeys(name for name in os.environ if name.startswith("REPO_SERVER_"))
    ended = CliRunner().invoke(main, ["check-config", *map(str, options)], env={**own, **(env or {})})
    assert ended.exception is None or isinstance(ended.exception, SystemExit), ended.exception
    return ended.exit_code, ended.stderr.splitlines()


def test_good_settings_are_good_and_nothing_is_made(tree: Tree, tmp_path: Path) -> None:
    before = {path for path in tmp_path.rglob("*") if tree.root not in path.parents}
    command = [Path(sys.executable).with_name("repo-server"), "check-config", "--tree", tree.root]
    command += ["--state", tmp_path / "state"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=environment())
    assert (ended.returncode, ended.stderr) == (0, "")
    assert {path for path in tmp_path.rglob("*") if tree.root not in path.parents} == before


def test_everything_that_is_wrong_is_said_at_once(tree: Tree, tmp_path: Path) -> None:
    secrets = tmp_path / "secrets"
    secrets.write_text("no-colon\n")
    secrets.chmod(0o600)
    certificate, key = make_certificate(tmp_path)
    key.write_text("garbage")
    (tmp_path / "state").mkdir(mode=0o755)
    (tree.root / "repo.toml").write_text("prodct = 1\n")
    code, said = checked(
        "--tree", tree.root, "--state", tmp_path / "state", "--secrets", secrets, "--tls-cert", certificate,
        "--tls-key", key, "--database-url", "nonsense", env={"REPO_SERVER_TYPO": "1"},
    )  # fmt: skip
    assert code == 2
    wanted = ("REPO_SERVER_TYPO", "repo.toml", "chmod 0700", "expected id:secret", "--database-url", "--tls-cert")
    assert [part for part in wanted if not any(part in line for line in said)] == []


def test_malformed_settings_are_said_at_once(tmp_path: Path) -> None:
    code, said = checked("--state", tmp_path, "--port", "x", "--limit-device", "often", "--max-connections", "1")
    assert code == 2
    assert [part for part in ("--tree", "--port", "--max-connections") if not any(part in line for line in said)] == []
    _, said = checked(
        "--tree", tmp_path, "--state", tmp_path, "--limit-device", "often", "--trusted-proxy", "x", "--base-url", "y"
    )
    assert [flag for flag in ("--limit-device", "--trusted-proxy", "--base-url") if flag not in "\n".join(said)] == []


def test_what_is_unsafe_or_missing_has_the_exit_code_of_serve(tree: Tree, tmp_path: Path) -> None:
    state = ("--state", tmp_path / "state")
    assert checked("--tree", tree.root, *state, "--host", "0.0.0.0")[0] == 3  # noqa: S104 -- refused
    assert checked("--tree", tmp_path / "nowhere", *state)[0] == 1
    secrets = tmp_path / "secrets"
    secrets.write_text("a:0123456789abcdef\n")
    secrets.chmod(0o644)
    assert checked("--tree", tree.root, *state, "--secrets", secrets)[0] == 3


@pytest.mark.parametrize("flag", ["--state", "--secrets", "--online-key", "--audit-log"])
def test_nothing_private_may_lie_in_the_tree(tree: Tree, tmp_path: Path, flag: str) -> None:
    """A mirror copies the whole folder."""
    state = () if flag == "--state" else ("--state", tmp_path / "state")
    code, said = checked("--tree", tree.root, *state, flag, tree.root / "sub" / "private")
    assert code in {2, 3}
    assert any(f"{flag} {tree.root}" in line and "lies in --tree" in line for line in said)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_folders_that_cannot_be_written_to_are_said(tree: Tree, tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    assert checked("--tree", tree.root, "--state", tmp_path / "closed" / "state")[0] == 1


def text_of(*options: str | Path) -> tuple[int, str]:
    """Return the exit code, and what is said as one text."""
    code, lines = checked(*options)
    return code, "\n".join(lines)


@pytest.fixture
def good(tree: Tree, tmp_path: Path) -> tuple[str | Path, ...]:
    """Return settings with which nothing is wrong."""
    return "--tree", tree.root, "--state", tmp_path / "state"


@pytest.mark.parametrize(
    ("network", "doubted"),
    [
        ("0.0.0.0/0", True), ("::/0", True), ("10.0.0.0/7", True), ("fc00::/7", True), ("2000::/15", True),
        ("10.0.0.0/8", False), ("127.0.0.1", False), ("fd00:1234::/16", False), ("::1", False),
    ],
)  # fmt: skip
def test_a_proxy_that_could_be_anybody_is_doubted(good: tuple[str | Path, ...], network: str, doubted: bool) -> None:
    """Whoever comes from there names the address that limits and audit take him for (NFR-AUD-001)."""
    code, text = text_of(*good, "--trusted-proxy", network)
    assert (code, f"warning: --trusted-proxy {network}" in text) == (0, doubted)


def test_settings_that_are_hardly_meant_are_warnings(good: tuple[str | Path, ...], tmp_path: Path) -> None:
    secrets = tmp_path / "secrets"
    secrets.write_text("weak:hunter2\n")
    secrets.chmod(0o600)
    code, text = text_of(*good, "--secrets", secrets, "--host", "0.0.0.0", "--proxy-header", "forwarded")  # noqa: S104 -- asked about
    assert code == 0
    warnings = ("'weak' is short enough to guess", "in the clear", "--proxy-header forwarded has no effect")
    assert [part for part in warnings if part not in text] == []
    assert "hunter2" not in text
    assert "comes through the proxy is served" in text_of(*good, "--trusted-proxy", "127.0.0.1")[1]
    assert "who asks" in text_of(*good, "--host", "0.0.0.0", "--insecure-no-auth")[1]  # noqa: S104 -- same


def test_a_database_and_a_redis_that_are_away_are_warnings_and_those_that_are_there_are_not(
    good: tuple[str | Path, ...], database: TestDatabase
) -> None:
    """A server starts without them, and says so."""
    away = text_of(
        *good, "--database-url", "postgresql://u:hunter2@127.0.0.1:1/x", "--redis-url", "redis://127.0.0.1:1"
    )
    assert away[0] == 0
    assert "warning: --database-url: PostgreSQL at 127.0.0.1" in away[1]
    assert "warning: --redis-url: Redis does not answer" in away[1]
    assert "hunter2" not in away[1]
    assert "warning" not in text_of(*good, "--database-url", database.url)[1]
    few = text_of(*good, "--database-url", database.url, "--workers", "200")
    assert (few[0], "connections" in few[1]) == (0, True)


def test_a_certificate_that_is_over_or_not_the_keys_is_an_error(good: tuple[str | Path, ...], tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path)
    pair = ("--tls-cert", certificate, "--tls-key", key)
    assert text_of(*good, *pair)[0] == 0
    (tmp_path / "other").mkdir()
    _, other = make_certificate(tmp_path / "other")
    code, text = text_of(*good, "--tls-cert", certificate, "--tls-key", other)
    assert (code, f"{other} is not the key of the first certificate" in text) == (2, True)
    encrypted = load_pem_private_key(key.read_bytes(), None).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")
    )
    other.write_bytes(encrypted)
    assert "has a passphrase" in text_of(*good, "--tls-cert", certificate, "--tls-key", other)[1]
    other.write_text("garbage")
    assert "is no private key" in text_of(*good, "--tls-cert", certificate, "--tls-key", other)[1]
    assert "is no certificate" in text_of(*good, "--tls-cert", other, "--tls-key", key)[1]
    assert "nowhere: No such file" in text_of(*good, "--tls-cert", tmp_path / "nowhere", "--tls-key", key)[1]
    certificate, key = make_certificate(tmp_path, days=0)
    code, text = text_of(*good, *pair)
    assert (code, "ended on" in text) == (1, True)
    certificate, key = make_certificate(tmp_path, since=2)
    code, text = text_of(*good, *pair)
    assert (code, "is not valid before" in text) == (1, True)


@pytest.mark.parametrize("host", ["300.1.2.3", "192.0.2.1", "no host", "x" * 300])
def test_an_address_that_is_not_ours_is_an_error(good: tuple[str | Path, ...], host: str) -> None:
    code, text = text_of(*good, "--host", host, "--insecure-no-auth")
    assert (code, f"cannot listen on {host}" in text, "check --host" in text) == (1, True, True)


def test_an_address_that_is_taken_is_none_for_the_server_itself_may_have_it(good: tuple[str | Path, ...]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert text_of(*good, "--port", str(taken.getsockname()[1])) == (0, "")


def test_a_state_that_is_no_folder_and_a_tree_without_a_root_are_errors(tree: Tree, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch(mode=0o600)
    for state in (file, file / "below"):
        assert checked("--tree", tree.root, "--state", state)[0] == 1
    (tmp_path / "empty").mkdir()
    code, text = text_of("--tree", tmp_path / "empty", "--state", tmp_path / "state")
    assert (code, "root" in text) == (1, True)
    assert text_of("--tree", "", "--state", tmp_path / "state")[0] == 2
