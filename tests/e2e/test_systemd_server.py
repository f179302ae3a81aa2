"""The server as the shipped units run it, on a real booted systemd: hardened, restarted, watched."""

from __future__ import annotations

import http.client
import json
import shutil
import socket
import sys
import sysconfig
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.endpoints import wait_until
from support.load import load
from support.machine import ROOT, Machine
from support.serving import SERVICE
from support.trees import Tree

from repo_server.core.wire import SECRET_HEADER

UNIT, SOCKET = "repo-server.service", "repo-server.socket"
PROGRAM = """\
#!/bin/sh
export LD_LIBRARY_PATH=/opt/python/lib
PYTHONPATH=/opt/commandit-updates/source:/opt/commandit-updates/packages exec {python} -m repo_server "$@"
"""
SECRET = "a-secret-for-the-test"


@dataclass
class Served:
    """The server in a machine, and how it is reached from here: the machine has this one's network."""

    machine: Machine
    port: int

    @property
    def headers(self) -> dict[str, str]:
        return {SECRET_HEADER: SECRET}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ready(self) -> dict[str, Any] | None:
        with suppress(OSError, http.client.HTTPException, ValueError):
            with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)) as connection:
                connection.request("GET", "/readyz")
                answer: dict[str, Any] = json.loads(connection.getresponse().read())
            return answer if answer["ready"] else None
        return None

    def wait(self) -> dict[str, Any]:
        answer: dict[str, Any] = wait_until(self.ready, f"the server is ready\n{self.journal()}")
        return answer

    def journal(self) -> str:
        return self.machine.do("journalctl", "--unit", UNIT, "--no-pager", "--lines=40", expect=None).stdout


@pytest.fixture
def served(machine: Machine, tmp_path: Path) -> Served:
    """Boot a machine with the server installed as its units want it, two workers, the database embedded."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    own_python = not sys.base_prefix.startswith("/usr")
    machine.binds += [f"{ROOT}:/opt/commandit-updates/source"]
    machine.binds += [f"{sysconfig.get_path('purelib')}:/opt/commandit-updates/packages"]
    machine.binds += [f"{sys.base_prefix}:/opt/python"] if own_python else []
    program = machine.root / "opt/commandit-updates/bin/repo-server"
    program.parent.mkdir(parents=True)
    program.write_text(PROGRAM.format(python="/opt/python/bin/python3" if own_python else "/usr/bin/python3"))
    program.chmod(0o755)
    units = machine.root / "etc/systemd/system"
    for name in (UNIT, SOCKET):
        shutil.copy(ROOT / "systemd" / name, units)
    (units / f"{SOCKET}.d").mkdir()
    (units / f"{SOCKET}.d/port.conf").write_text(f"[Socket]\nListenStream=\nListenStream={port}\n")
    (units / f"{UNIT}.d").mkdir()
    (units / f"{UNIT}.d/soon.conf").write_text("[Service]\nWatchdogSec=5\nTimeoutAbortSec=2\nRestartSec=100ms\n")
    settings = machine.root / "etc/commandit"
    settings.mkdir()
    (settings / "repo-server.toml").write_text('secrets = "secrets"\nworkers = 2\nshutdown_seconds = 5\n')
    (settings / "secrets").write_text(f"test:{SECRET}\n")
    Tree(tmp_path / "tree").add(SERVICE)
    shutil.copytree(tmp_path / "tree", machine.root / "srv/downloads")
    machine.boot()
    machine.do("useradd", "--system", "repo-server")
    machine.do("chown", "-R", "repo-server:repo-server", "/srv/downloads", "/etc/commandit")
    machine.do("chmod", "0600", "/etc/commandit/secrets")
    machine.do("systemctl", "daemon-reload")
    return Served(machine, port)


def test_the_units_start_restart_and_guard_the_server(served: Served) -> None:
    """NFR-REL-004: hardened, on a socket that stays open; a restart loses no request, a hang is ended."""
    machine = served.machine
    machine.do("systemctl", "enable", "--now", UNIT, expect=None)
    assert machine.is_active(UNIT), served.journal()
    state = served.wait()
    wait_until(lambda: (served.ready() or {}).get("database", {}).get("state") == "ready", "PostgreSQL works in there")
    assert state["conditions"] == []
    exposure = machine.do("systemd-analyze", "security", "--no-pager", UNIT).stdout.strip().splitlines()[-1]
    assert float(exposure.split(":")[1].split()[0]) <= 2.0, exposure

    with load(served.url, headers=served.headers, reports=True) as asking:
        asking.wait_for(200)
        for _ in range(2):
            machine.do("systemctl", "restart", UNIT)
            asking.wait_for(200)
    assert asking.errors == []

    main, heard = machine.show(UNIT, "MainPID"), machine.show(UNIT, "WatchdogTimestampMonotonic")
    wait_until(lambda: machine.show(UNIT, "WatchdogTimestampMonotonic") != heard, "the watchdog hears of the server")
    assert machine.show(UNIT, "MainPID") == main
    machine.do("systemctl", "kill", "--signal=SIGSTOP", "--kill-whom=main", UNIT)
    wait_until(lambda: machine.show(UNIT, "MainPID") not in {main, "0"}, "the hung server is replaced")
    served.wait()
    assert "atchdog" in served.journal()
    assert machine.show(UNIT, "NRestarts") == "1"

    machine.do("systemctl", "stop", SOCKET, UNIT)
    assert machine.show(UNIT, "Result") == "success", served.journal()
    assert not list((machine.root / "var/lib/repo-server/postgres").glob("postmaster.pid"))
