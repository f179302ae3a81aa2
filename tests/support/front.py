"""nginx before a server, configured as ``systemd/nginx.conf.example`` has it."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from support.programs import free_port
from support.server import wait_until

EXAMPLE = Path(__file__).resolve().parents[2] / "systemd" / "nginx.conf.example"
MAIN = """\
{user}
daemon off;
pid {home}/pid;
error_log {home}/error.log info;
events {{}}
http {{
    log_format handed '$request_uri $status $upstream_http_x_accel_redirect';
    access_log {home}/access.log handed;
    client_body_temp_path {home}/body;
    proxy_temp_path {home}/proxy;
    fastcgi_temp_path {home}/fastcgi;
    uwsgi_temp_path {home}/uwsgi;
    scgi_temp_path {home}/scgi;
    {example}
}}
"""

needs_nginx = pytest.mark.skipif(shutil.which("nginx") is None, reason="needs nginx (Debian package nginx-light)")


def configured(home: Path, port: int, behind: Sequence[int], tree: Path) -> str:
    """Return the example with the test's ports and folders, without TLS."""
    text = EXAMPLE.read_text()
    servers = "\n    ".join(f"server 127.0.0.1:{number};" for number in behind)
    for old, new in (
        ("listen 443 ssl;", f"listen 127.0.0.1:{port};"),
        ("server 127.0.0.1:8470;", servers),
        ("/srv/downloads", str(tree)),
    ):
        assert old in text
        text = text.replace(old, new)
    lines = [line for line in text.splitlines() if not line.strip().startswith("ssl_")]
    user = "user root;" if os.geteuid() == 0 else ""
    return MAIN.format(user=user, home=home, example="\n    ".join(lines))


@contextlib.contextmanager
def nginx(home: Path, behind: int | Sequence[int], tree: Path, port: int | None = None) -> Iterator[str]:
    """Run nginx on a free port before one server or several; yield its URL."""
    home.mkdir()
    behind = [behind] if isinstance(behind, int) else behind
    port = free_port() if port is None else port
    (home / "nginx.conf").write_text(configured(home, port, behind, tree))
    with (
        (home / "out").open("w") as out,
        subprocess.Popen(["nginx", "-p", home, "-c", home / "nginx.conf"], stdout=out, stderr=out) as process,
    ):
        try:

            def listens() -> bool:
                assert process.poll() is None, (home / "out").read_text()
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                    return True
                return False

            wait_until(listens, "nginx listens")
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
