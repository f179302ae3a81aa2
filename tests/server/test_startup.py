"""Starting: every refusal has an exit code and says what to do (design §11)."""

from __future__ import annotations

import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest
import urllib3
from support.certificates import make_certificate
from support.server import accepts, command, environment, running, wait_until
from support.serving import SERVICE
from support.trees import Tree


def refused(*arguments: str, env: dict[str, str] | None = None) -> tuple[int, str]:
    """Run a server that must not start; return its exit code and what it said."""
    ended = subprocess.run(
        list(arguments), capture_output=True, text=True, check=False, timeout=60, env=environment(**(env or {}))
    )
    assert "Traceback" not in ended.stderr
    assert "listening" not in ended.stdout
    return ended.returncode, ended.stderr


def test_the_line_on_stdout_means_that_agents_are_served(tree: Tree, tmp_path: Path) -> None:
    with running(tree.root, tmp_path / "state", ready=False) as server:
        assert server.get("/readyz").status == 200
        assert server.offered() == {"service": "1.2.3"}


def test_until_the_first_look_is_done_agents_are_asked_to_come_back(tmp_path: Path) -> None:
    """A cold start takes as long as hashing the tree; it says so, and a signal ends it at once."""
    tree = Tree(tmp_path / "tree")
    with tree.add(SERVICE, b"").open("wb") as file:
        file.truncate(40 * 1024**3)
    (tree.root / "repo.toml").write_text('product = "commandit"\n[limits]\nmax_file_bytes = 99999999999\n')
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = ("--no-database", "--port", str(port))
    with subprocess.Popen(
        command(tree.root, tmp_path / "state", *options), stderr=subprocess.DEVNULL, env=environment()
    ) as process:
        wait_until(lambda: accepts(port), "it listens")
        with urllib3.PoolManager(retries=False) as http:
            ready = http.request("GET", f"http://127.0.0.1:{port}/readyz")
            assert (ready.status, ready.json()["scan"]["state"]) == (503, "scanning")
            for path in ("/v1/problems", f"/v1/packages/{SERVICE}"):
                response = http.request("GET", f"http://127.0.0.1:{port}{path}")
                assert (response.status, response.json()["error_code"]) == (503, "not_ready")
                assert int(response.headers["retry-after"]) > 0
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


def test_a_port_that_is_taken_is_said(tree: Tree, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        code, said = refused(*command(tree.root, tmp_path / "state", "--port", str(port)))
    assert code == 1
    assert f"port {port}" in said
    assert "--port" in said


def test_an_address_that_is_not_ours_is_said(tree: Tree, tmp_path: Path) -> None:
    code, said = refused(*command(tree.root, tmp_path / "state", "--host", "192.0.2.1", "--insecure-no-auth"))
    assert (code, "192.0.2.1" in said) == (1, True)


def test_a_tree_that_is_missing_or_no_folder_is_said(tmp_path: Path) -> None:
    code, said = refused(*command(tmp_path / "nowhere", tmp_path / "state"))
    assert (code, "does not exist" in said, "repotool init" in said) == (1, True, True)
    (tmp_path / "file").write_text("")
    code, said = refused(*command(tmp_path / "file", tmp_path / "state"))
    assert (code, "not a folder" in said) == (1, True)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--port", "x"], "--port"),
        (["--workers", "0"], "--workers"),
        (["--nonsense"], "--nonsense"),
        (["--config", "/nowhere.toml"], "/nowhere.toml"),
        (["--database-url", "not a url"], "--database-url"),
        (["--tls-cert", "/nowhere.pem", "--tls-key", "/nowhere.pem"], "/nowhere.pem"),
    ],
)
def test_bad_settings_are_wrong_usage(tree: Tree, tmp_path: Path, options: list[str], expected: str) -> None:
    code, said = refused(*command(tree.root, tmp_path / "state", *options))
    assert (code, expected in said) == (2, True), said


def test_a_secrets_file_without_secrets_is_wrong_usage(tree: Tree, tmp_path: Path) -> None:
    secrets = tmp_path / "secrets"
    secrets.touch(mode=0o600)
    assert refused(*command(tree.root, tmp_path / "state", "--secrets", str(secrets)))[0] == 2


def test_an_open_server_is_refused(tree: Tree, tmp_path: Path) -> None:
    code, said = refused(*command(tree.root, tmp_path / "state", "--host", "0.0.0.0"))  # noqa: S104 -- refused
    assert (code, "--insecure-no-auth" in said) == (3, True)
    with running(tree.root, tmp_path / "state", "--host", "0.0.0.0", "--insecure-no-auth", ready=False):  # noqa: S104
        pass


def test_a_state_folder_or_secrets_file_that_others_can_read_is_refused(tree: Tree, tmp_path: Path) -> None:
    """NFR-SEC-007."""
    secrets = tmp_path / "secrets"
    secrets.write_text("a:0123456789abcdef\n")
    secrets.chmod(0o644)
    code, said = refused(*command(tree.root, tmp_path / "state", "--secrets", str(secrets)))
    assert (code, f"chmod 0600 {secrets}" in said) == (3, True)
    (tmp_path / "open").mkdir(mode=0o755)
    code, said = refused(*command(tree.root, tmp_path / "open"))
    assert (code, "chmod 0700" in said) == (3, True)


def test_a_second_server_on_one_state_folder_is_busy(tree: Tree, tmp_path: Path) -> None:
    with running(tree.root, tmp_path / "state") as server:
        code, said = refused(*command(tree.root, tmp_path / "state"))
        assert (code, "another repo-server" in said) == (4, True)
        assert server.get("/healthz").status == 200
    with running(tree.root, tmp_path / "state"):
        pass


def test_a_state_folder_is_made_private(tree: Tree, tmp_path: Path) -> None:
    with running(tree.root, tmp_path / "a" / "state"):
        assert (tmp_path / "a" / "state").stat().st_mode & 0o777 == 0o700


def test_a_key_that_this_version_does_not_use_is_not_ignored_silently(tree: Tree, tmp_path: Path) -> None:
    state = tmp_path / "state"
    ended = []

    def read(process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        ended.extend(process.stdout)

    with subprocess.Popen(
        command(tree.root, state, "--no-database", "--online-key", str(tmp_path / "online.pem")),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(),
    ) as process:  # fmt: skip
        reader = threading.Thread(target=read, args=(process,))
        reader.start()
        wait_until(lambda: any("listening" in line for line in ended), "it listens")
        process.send_signal(signal.SIGTERM)
        reader.join()
        assert process.stderr is not None
        assert "not in this version" in process.stderr.read()
        assert process.wait(30) == 0
    assert any("not in this version" in line for line in ended)


def test_settings_come_from_environment_and_file_too(tree: Tree, tmp_path: Path) -> None:
    config = tmp_path / "server.toml"
    config.write_text("next_check_seconds = 77\nlog_level = 'debug'\n")
    env = {"REPO_SERVER_CONFIG": str(config), "REPO_SERVER_BASE_URL": "https://u.example", "REPO_SERVER_TYPO": "1"}
    with running(tree.root, tmp_path / "state", env=env) as server:
        answer = server.check()
        assert answer["next_check_seconds"] == 77
        assert answer["updates"][0]["url"].startswith("https://u.example/v1/packages/")
        assert "REPO_SERVER_TYPO" in server.log


def test_tls_serves_https_and_its_urls(tree: Tree, tmp_path: Path) -> None:
    """NFR-SEC-001: TLS 1.2 or newer."""
    import ssl

    make_certificate(tmp_path)
    options = ("--tls-cert", str(tmp_path / "cert.pem"), "--tls-key", str(tmp_path / "key.pem"))
    options += ("--shutdown-seconds", "600")
    with running(tree.root, tmp_path / "state", *options, ready=False) as server:
        assert server.url.startswith("https://")
        trusting = ssl.create_default_context()
        trusting.check_hostname = False
        trusting.verify_mode = ssl.CERT_NONE
        server.http.connection_pool_kw |= {"ssl_context": trusting, "cert_reqs": "CERT_NONE", "assert_hostname": False}
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a certificate of our own, unverified on purpose
            wait_until(lambda: server.get("/readyz").status == 200, "the server is ready", server.log_path)
            assert server.check()["updates"][0]["url"].startswith(f"{server.url}/")
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
        old.set_ciphers("DEFAULT:@SECLEVEL=0")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the old version is what is tested
            old.maximum_version = ssl.TLSVersion.TLSv1_1
            old.minimum_version = ssl.TLSVersion.TLSv1
        with (
            socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection,
            pytest.raises((ssl.SSLError, OSError)),
        ):
            old.wrap_socket(connection)
        started = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - started < 20, "it waited for idle clients to agree to the end of their TLS"
