"""``repo-server check-config`` says everything at once, and agrees with ``serve`` (design §11)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.certificates import make_certificate
from support.server import environment
from support.trees import Tree


def checked(*options: str | Path, env: dict[str, str] | None = None) -> tuple[int, list[str]]:
    command = [Path(sys.executable).with_name("repo-server"), "check-config", *options]
    ended = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=60, env=environment(**(env or {}))
    )
    assert "Traceback" not in ended.stderr
    return ended.returncode, ended.stderr.splitlines()


def test_good_settings_are_good_and_nothing_is_made(tree: Tree, tmp_path: Path) -> None:
    before = {path for path in tmp_path.rglob("*") if tree.root not in path.parents}
    assert checked("--tree", tree.root, "--state", tmp_path / "state") == (0, [])
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
