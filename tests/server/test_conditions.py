"""What is wrong with a server has names that operators can look up."""

from __future__ import annotations

import re
from pathlib import Path

import repo_server
from repo_server.tree.whole import WHOLE_TREE

HOME = Path(repo_server.__file__).parent
_WATCHED = re.compile(r'\.watch\(\s*"(\w+)"')


def test_every_condition_stands_in_the_readme() -> None:
    watched = {code for path in HOME.rglob("*.py") for code in _WATCHED.findall(path.read_text())}
    assert {"database_away", "scan_stalled"} <= watched
    table = "\n".join(line for line in (HOME / "README.md").read_text().splitlines() if line.startswith("| `"))
    missing = {code for code in {*watched, *WHOLE_TREE} if f"`{code}`" not in table}
    assert missing == set()
