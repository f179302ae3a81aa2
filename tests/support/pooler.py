"""A real PgBouncer (Debian package pgbouncer) that gives every transaction another server connection."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.databases import TestDatabase
from support.programs import free_port
from support.server import wait_until

CONFIGURATION = """\
[databases]
* = host={host} user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 3
max_client_conn = 200
logfile = {folder}/pgbouncer.log
"""


@contextlib.contextmanager
def pooled(database: TestDatabase) -> Iterator[TestDatabase]:
    """Run a pooler before a database, with fewer connections than one server would like."""
    program = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
    if program is None:
        pytest.skip("needs pgbouncer (Debian package)")
    socket_folder = Path(database.url.partition("host=")[2].partition(" ")[0])
    name, port = database.url.rpartition("=")[2], free_port()
    with contextlib.ExitStack() as stack:
        # It refuses to be root; the folders on the way to PostgreSQL are for root only, so it gets that one opened.
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pooler-")))
        descriptor = os.open(socket_folder, os.O_RDONLY | os.O_DIRECTORY)
        stack.callback(os.close, descriptor)
        host = f"/proc/self/fd/{descriptor}"
        (folder / "pgbouncer.ini").write_text(CONFIGURATION.format(host=host, port=port, folder=folder))
        owner = socket_folder.stat().st_uid
        for path in (folder, folder / "pgbouncer.ini"):
            os.chown(path, owner, -1)
        process = stack.enter_context(
            subprocess.Popen(
                [program, "-q", folder / "pgbouncer.ini"],
                stderr=subprocess.DEVNULL,
                pass_fds=(descriptor,),
                user=owner if os.geteuid() == 0 else None,
            )
        )
        stack.callback(process.kill)
        wait_until(lambda: _listens(port), "PgBouncer listens")
        yield TestDatabase(f"host=127.0.0.1 port={port} user=postgres dbname={name}")


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError):
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
        return True
    return False
