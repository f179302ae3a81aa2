"""Which processes a control group holds: systemd itself cannot always tell when one is empty (cgroups(7))."""

from __future__ import annotations

from pathlib import Path

_HIERARCHIES = tuple(Path("/sys/fs/cgroup") / name for name in ("", "unified", "systemd"))
"""Where systemd keeps its own: version 2, mixed, version 1."""


def own_groups(about: Path = Path("/proc/self/cgroup")) -> str:
    """Return the control groups that this process is in, as the kernel lists them; "" where there are none."""
    try:
        return about.read_text()
    except OSError:
        return ""


def members(group: str, hierarchies: tuple[Path, ...] = _HIERARCHIES) -> list[int]:
    """Return the processes in a control group and below it; "" and one that is gone have none."""
    if not group.strip("/"):
        return []
    found: set[int] = set()
    for hierarchy in hierarchies:
        folder = hierarchy / group.lstrip("/")
        for path in folder.rglob("cgroup.procs"):
            try:
                found.update(int(line) for line in path.read_text().split())
            except OSError:
                # It went in between.
                continue
    # 0 stands for those of another process namespace: they are nobody's that we could know.
    return sorted(found - {0})
