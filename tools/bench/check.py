"""``POST /v1/check`` with everything on, against a bare ASGI app on the same uvicorn (design §9: >= 0.65, p99 <= 3x).

One server process, 1,000 devices (95 % up to date, four platforms, three channels), embedded PostgreSQL and wrk beside
it on the same machine. Bare and real server are measured in turns, and the median of the rounds counts.
"""

from __future__ import annotations

import json
import statistics
import urllib.request
import uuid
from pathlib import Path

from repo_server.core.wire import SECRET_HEADER
from tools.bench.programs import SECRET, bare_server, repo_server, wrk
from tools.bench.result import Result
from tools.bench.trees import make_tree

RELEASES = 480
DEVICES = 1000
ROUNDS = 3

LUA = """\
local bodies = {}
for line in io.lines(%(bodies)s) do bodies[#bodies + 1] = line end
local headers = {["Content-Type"] = "application/json", [%(header)s] = %(secret)s}
local requests, at = {}, 0
init = function(args)
  for i, body in ipairs(bodies) do
    headers["X-Forwarded-For"] = "198.51.100." .. i %% 200
    requests[i] = wrk.format("POST", "/v1/check", headers, body)
  end
end
request = function()
  at = at %% #requests + 1
  return requests[at]
end
"""


def run(home: Path) -> list[Result]:
    """Return throughput and tail latency as ratios."""
    tree = make_tree(home, RELEASES, 0)
    bodies = [json.dumps(device(number)) for number in range(DEVICES)]
    (home / "bodies").write_text("\n".join(bodies) + "\n")
    script = home / "check.lua"
    quoted = {"bodies": home / "bodies", "header": SECRET_HEADER, "secret": SECRET}
    script.write_text(LUA % {name: json.dumps(str(value)) for name, value in quoted.items()})
    # Each device asks a hundred times as often as it may; the limits are in force, and reached by nobody. As behind a
    # proxy, for the limit per address does not count on loopback.
    limits = ("--limit-device", "1000000/1s", "--limit-address", "1000000/1s", "--trusted-proxy", "127.0.0.1")
    with (
        repo_server(tree, home, *limits) as url,
        bare_server(home, answer_to(url, bodies[1])) as bare,
    ):
        rounds = [(wrk(bare, script), wrk(url, script)) for _ in range(ROUNDS)]
    bare_rate, rate = (statistics.median(pair[side][0] for pair in rounds) for side in (0, 1))
    bare_tail, tail = (statistics.median(pair[side][1] for pair in rounds) for side in (0, 1))
    return [
        Result("check throughput", rate, bare_rate, "1/s", "bare ASGI app", at_least=0.65),
        Result("check p99 latency", tail, bare_tail, "ms", "bare ASGI app", at_most=3.0),
    ]


def device(number: int) -> dict[str, object]:
    """Describe one of the fleet's devices: 95 % have the newest release that their channel sees."""
    newest = RELEASES // 24 - 1
    channel = ("stable", "stable", "stable", "beta", "alpha")[number % 5]
    # Every fourth version is beta, see trees.make_tree.
    current = newest if channel != "stable" or newest % 4 != 3 else newest - 1
    version = f"1.{current if number % 20 else current - 2}.0"
    return {
        "device_id": str(uuid.UUID(int=number + 1)),
        "updater_version": "1.0.0",
        "os": ("windows", "windows", "linux", "macos")[number % 4],
        "arch": ("amd64", "arm64")[number % 3 == 0],
        "release_channel": channel,
        "org_id": f"org-{number % 50}",
        "site_id": f"site-{number % 200}",
        "attributes": {"machine": f"{number:032x}"},
        "components": [{"name": name, "version": version} for name in ("service", "ui", "probe", "updater")],
    }


def answer_to(url: str, body: str) -> bytes:
    """Ask once, for the bytes that the baseline answers."""
    headers = {"Content-Type": "application/json", SECRET_HEADER: SECRET}
    with urllib.request.urlopen(urllib.request.Request(f"{url}/v1/check", body.encode(), headers)) as response:
        answer: bytes = response.read()
        return answer
