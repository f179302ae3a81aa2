"""The units in ``systemd/`` are accepted by the real ``systemd-analyze verify``."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parent.parent / "systemd"
UNITS = sorted(path for path in FOLDER.iterdir() if path.suffix in {".service", ".socket", ".timer"})

needs_systemd_analyze = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed (Debian package systemd)"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """All units, with each program replaced by one that exists here: verify looks for it."""
    for unit in UNITS:
        text = re.sub(r"(?m)^(ExecStart=)\S+", rf"\1{shutil.which('true')}", unit.read_text())
        (tmp_path / unit.name).write_text(text)
    return tmp_path


@needs_systemd_analyze
@pytest.mark.parametrize("name", [unit.name for unit in UNITS])
def test_systemd_accepts_the_unit(folder: Path, name: str) -> None:
    result = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=one", str(folder / name)],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "SYSTEMD_UNIT_PATH": f"{folder}:"},
    )
    said = [line for line in result.stderr.splitlines() if name in line]
    assert (result.returncode, said) == (0, [])


@needs_systemd_analyze
def test_a_broken_unit_is_noticed(folder: Path) -> None:
    unit = folder / "repo-server.service"
    unit.write_text(unit.read_text().replace("Type=notify", "Type=nonsense").replace("KillMode=mixed", "KillMud=mixed"))
    result = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False
    )
    assert "repo-server.service" in result.stderr


def test_every_program_is_one_that_the_project_or_debian_has() -> None:
    programs = {match for unit in UNITS for match in re.findall(r"(?m)^ExecStart=(\S+)", unit.read_text())}
    assert programs == {
        "/opt/commandit-updates/bin/repo-server",
        "/opt/commandit/updater/bin/commandit-updater",
        "/usr/bin/rsync",
    }
