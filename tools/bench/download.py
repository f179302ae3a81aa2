"""A file of 100 MB on one connection, against nginx sending the same file (design §9: >= 0.5)."""

from __future__ import annotations

import os
import shutil
import socket
import statistics
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from repo_server.core.model import Arch, Os, Platform, ReleaseId
from repo_server.core.version import Version
from repo_server.core.wire import SECRET_HEADER
from tools.bench.programs import SECRET, repo_server
from tools.bench.result import Result
from tools.bench.trees import add_release, make_tree, release_signer

SIZE = 100_000_000
ROUNDS = 9

NGINX = """\
daemon off; pid {home}/nginx.pid; error_log {home}/nginx.log; {user}
events {{}}
http {{
    access_log off; sendfile on; tcp_nopush on;
    client_body_temp_path {home}/body; proxy_temp_path {home}/proxy; fastcgi_temp_path {home}/fastcgi;
    uwsgi_temp_path {home}/uwsgi; scgi_temp_path {home}/scgi;
    server {{ listen 127.0.0.1:{port}; root {root}; }}
}}
"""


def run(home: Path) -> list[Result]:
    """Return throughput as a ratio; both sides are measured in turns, by curl."""
    tree = make_tree(home, 0, 0)
    release = ReleaseId("service", Version("1.0.0"), Platform(Os.LINUX, Arch.AMD64))
    path = add_release(tree / "0", release, os.urandom(SIZE), release_signer(home), beta=False).relative_to(tree)
    with repo_server(tree, home) as url, nginx(home, tree) as other:
        rounds = [(rate(f"{url}/v1/packages/{path}"), rate(f"{other}/{path}")) for _ in range(ROUNDS)]
    ours, theirs = (statistics.median(pair[side] for pair in rounds) for side in (0, 1))
    return [Result("download, 100 MB", ours, theirs, "MB/s", "nginx", at_least=0.5)]


def rate(url: str) -> float:
    """Download a file and throw it away; return megabytes per second."""
    command = ["curl", "-sSf", "-o", os.devnull, "-H", f"{SECRET_HEADER}: {SECRET}", "-w", "%{time_total}", url]
    return SIZE / 1e6 / float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@contextmanager
def nginx(home: Path, root: Path) -> Iterator[str]:
    """Run nginx on a free port; yield its URL."""
    if shutil.which("nginx") is None:
        raise SystemExit("this benchmark needs nginx (Debian package nginx-light)")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config = home / "nginx.conf"
    user = "user root;" if os.geteuid() == 0 else ""
    config.write_text(NGINX.format(home=home, port=port, root=root, user=user))
    with subprocess.Popen(["nginx", "-p", home, "-c", config]) as process:
        try:
            while process.poll() is None:
                try:
                    socket.create_connection(("127.0.0.1", port), timeout=1).close()
                    break
                except OSError:
                    time.sleep(0.05)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
