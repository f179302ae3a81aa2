"""``POST /v1/check`` of 100,000 devices against 1,000, all of them in the database (design §9: within 10 %).

Two servers, each with its own PostgreSQL, are asked in turns by wrk beside them; every device of a fleet asks in turn,
so that the larger one is never merged into fewer rows on the way to the database. The median of the rounds counts.
"""

from __future__ import annotations

import json
import statistics
import time
import urllib.request
from pathlib import Path

from repo_server.core.wire import SECRET_HEADER
from tools.bench.check import LUA, RELEASES, device
from tools.bench.programs import SECRET, repo_server, wrk
from tools.bench.result import Result
from tools.bench.trees import make_tree

FEW, MANY = 1_000, 100_000
ROUNDS = 3


def run(home: Path) -> list[Result]:
    """Return the throughput with many devices over that with few."""
    tree = make_tree(home, RELEASES, 0)
    homes = {devices: home / str(devices) for devices in (FEW, MANY)}
    scripts = {}
    for devices, folder in homes.items():
        folder.mkdir()
        scripts[devices] = script_for(folder, devices)
    options = ("--limit-device", "1000000/1s", "--public-metrics")
    with repo_server(tree, homes[FEW], *options) as few, repo_server(tree, homes[MANY], *options) as many:
        for url, devices in ((few, FEW), (many, MANY)):
            fill(url, scripts[devices], devices)
        rounds = [(wrk(few, scripts[FEW])[0], wrk(many, scripts[MANY])[0]) for _ in range(ROUNDS)]
    rate_few, rate_many = (statistics.median(pair[side] for pair in rounds) for side in (0, 1))
    return [Result("100,000 devices", rate_many, rate_few, "1/s", "1,000 devices", at_least=0.9)]


def script_for(home: Path, devices: int) -> Path:
    """Write a script for wrk that has so many devices ask in turn."""
    bodies, script = home / "bodies", home / "check.lua"
    bodies.write_text("".join(f"{json.dumps(device(number))}\n" for number in range(devices)))
    quoted = {"bodies": bodies, "header": SECRET_HEADER, "secret": SECRET}
    script.write_text(LUA % {name: json.dumps(str(value)) for name, value in quoted.items()})
    return script


def fill(url: str, script: Path, devices: int) -> None:
    """Have every device ask until all of them are in the database."""
    while written(url) < devices:
        wrk(url, script, seconds=4)
        time.sleep(1)


def written(url: str) -> int:
    """Return how many check-ins the database has; the first round of a fleet writes each device once."""
    with urllib.request.urlopen(f"{url}/metrics") as response:
        text = response.read().decode()
    lines = [line for line in text.splitlines() if line.startswith('repo_server_check_ins_total{outcome="written"}')]
    return int(float(lines[0].split()[-1])) if lines else 0
