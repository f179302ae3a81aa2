"""The agent: idle, checking, and updating a package of 100 MB (design §9).

The real server and the real agent on loopback. Idle: memory of the resident parent against 14 MB, and how often it
woke up between two checks. Check: processor time of a cycle that finds nothing. Update: a whole cycle against
``curl | sha256sum`` and ``tar -x`` of the same file from the same server, in turns.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from agent.platform.logcap import SOON
from repo_server.core.wire import SECRET_HEADER
from tools.bench.packages import publish
from tools.bench.programs import SECRET, repo_server
from tools.bench.result import Result
from tools.bench.trees import BIN

IDLE_SECONDS = 60
CYCLES = 5
UPDATES = 3
PACKAGE_BYTES = 100_000_000
ARCH = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), "amd64")


def run(home: Path) -> list[Result]:
    """Return memory, wake-ups, processor time of a check, and time of an update."""
    tree = home / "downloads"
    call([BIN / "repotool", "init", tree, "--keys", home / "keys", "--no-passphrase"])
    publish(home, tree, "1.0.0", ARCH, 1_000_000)
    with repo_server(tree, home) as url, endpoint(home, url) as agent:
        results = [*idle(agent), *no_update(agent)]
        rounds = [update(home, agent, url, f"2.{number}.0") for number in range(UPDATES)]
    took, baseline = (statistics.median(pair[side] for pair in rounds) for side in (0, 1))
    return [*results, Result("update, 100 MB", took, baseline, "s", "curl | sha256sum, tar -x", at_most=2.0)]


@contextmanager
def endpoint(home: Path, url: str) -> Iterator[list[str | Path]]:
    """Install the agent below a folder; yield how it is called; stop its components afterwards."""
    agent: list[str | Path] = [BIN / "commandit-updater", "--root-dir", home / "endpoint"]
    secret = home / "secret"
    secret.write_text(f"{SECRET}\n")
    secret.chmod(0o600)
    wait_for_offer(url, "1.0.0")
    try:
        call([*agent, "install", "--server", url, "--root", home / "keys/root.json", "--secret-file", secret,
              "--components", "service", "--service-manager", "process"])  # fmt: skip
        yield agent
    finally:
        subprocess.run([*agent, "stop"], check=False, stdout=subprocess.DEVNULL)


def idle(agent: Sequence[str | Path]) -> list[Result]:
    """Measure the resident parent between two checks, with a component under it whose log was looked at (``SOON``)."""
    bare = [sys.executable, "-IS", "-c", "import signal; signal.pause()"]
    with subprocess.Popen([*agent, "run"]) as daemon, subprocess.Popen(bare) as python:
        try:
            wait_until(lambda: asleep(daemon.pid) and asleep(python.pid), "the agent is idle")
            time.sleep(2 * SOON)
            before = figure(daemon.pid, "voluntary_ctxt_switches")
            time.sleep(IDLE_SECONDS)
            woken = figure(daemon.pid, "voluntary_ctxt_switches") - before
            memory, least = (figure(pid, "VmRSS") / 1024 for pid in (daemon.pid, python.pid))
        finally:
            daemon.terminate()
            python.terminate()
    return [
        Result("idle agent, memory", memory, 14.0, "MiB", "14 MiB", at_most=1.0),
        Result("idle agent, memory", memory, least, "MiB", "bare python -IS"),
        Result(f"idle agent, wake-ups in {IDLE_SECONDS} s", woken, 1.0, "", "one", at_most=0.0),
    ]


def no_update(agent: Sequence[str | Path]) -> list[Result]:
    """Measure the processor time of a cycle that finds everything up to date."""
    took = statistics.median(processor_time([*agent, "once"]) for _ in range(CYCLES))
    least = statistics.median(processor_time([sys.executable, "-c", "pass"]) for _ in range(CYCLES))
    return [
        Result("check without update, CPU", took, 0.5, "s", "0.5 s", at_most=1.0),
        Result("check without update, CPU", took, least, "s", "python -c pass"),
    ]


def update(home: Path, agent: Sequence[str | Path], url: str, version: str) -> tuple[float, float]:
    """Publish a version; return how long the agent takes for it, and how long curl, sha256sum and tar do."""
    name = publish(home, home / "downloads", version, ARCH, PACKAGE_BYTES)
    wait_for_offer(url, version)
    took = timed(lambda: call([*agent, "once"]))
    installed = (home / "endpoint/opt/commandit/service/VERSION").read_text()
    if installed != version:
        raise SystemExit(f"the agent has {installed}, not {version}")
    plain = home / "plain"
    plain.mkdir()
    script = (
        f'curl -sSf -H "{SECRET_HEADER}: {SECRET}" {url}/v1/packages/{name} | tee {name} | sha256sum >/dev/null'
        f" && tar -xzf {name}"
    )
    baseline = timed(lambda: call(["bash", "-o", "pipefail", "-c", script], plain))
    call(["rm", "-rf", plain])
    return took, baseline


def wait_for_offer(url: str, version: str) -> None:
    """Wait until the server offers a version to a device that has nothing."""
    components = [{"name": "service", "version": "0.0.1"}]
    body = {"updater_version": "1.0.0", "os": "linux", "arch": ARCH, "release_channel": "stable"}
    headers = {"Content-Type": "application/json", SECRET_HEADER: SECRET}
    request = urllib.request.Request(
        f"{url}/v1/check", json.dumps({**body, "components": components}).encode(), headers
    )

    def offered() -> bool:
        with urllib.request.urlopen(request) as response:
            return [one["version"] for one in json.loads(response.read())["updates"]] == [version]

    wait_until(offered, f"the server offers {version}")


def asleep(pid: int) -> bool:
    """Whether a process waits and has no child."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    waits = Path(f"/proc/{pid}/wchan").read_text()
    return not children and any(word in waits for word in ("poll", "pause", "sigsuspend"))


def figure(pid: int, name: str) -> int:
    """Return a number of ``/proc/PID/status``; memory is in KiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{name}:")).split()[1])


def processor_time(command: Sequence[str | Path]) -> float:
    """Run a program; return its user and system seconds."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"{command[-1]} ended with {process.returncode}")
    return usage.ru_utime + usage.ru_stime


def timed(work: Callable[[], object]) -> float:
    """Return how many seconds something takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def call(command: Sequence[str | Path], folder: Path | None = None) -> None:
    """Run a program that must succeed."""
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=folder)


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
    """Wait for a condition."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise SystemExit(f"waited {seconds:.0f} s until {what}")
        time.sleep(0.05)
