"""What the fault tests rest on: no call of the agent that changes something gets past ``crash.tap``."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from crash.bench import LOG
from simulators.repository import Repository
from support.components import Package
from support.endpoints import endpoint_in

COMPONENTS = ("service", "probe", "ui")
TESTS = Path(__file__).parent.parent
RECORDER = Path(__file__).with_name("recorded_agent.py")
SAME = {
    "replace": "rename", "renameat": "rename", "renameat2": "rename", "killpg": "kill", "remove": "unlink",
    "unlinkat": "unlink", "mkdirat": "mkdir", "openat": "open", "creat": "open", "pwrite64": "pwrite",
    "sendfile64": "sendfile", "vfork": "spawn", "fork": "spawn", "clone": "spawn", "clone3": "spawn",
    "symlinkat": "symlink", "linkat": "link", "fchmodat": "chmod", "fchmodat2": "chmod", "fchownat": "chown",
    "utimensat": "utime", "fallocate": "posix_fallocate", "pwritev2": "pwritev", "rt_tgsigqueueinfo": "kill",
}  # fmt: skip
"""Names of system calls, and of Python's functions → one name."""
TRACED = ("open,openat,creat,write,writev,pwrite64,pwritev,pwritev2,sendfile,copy_file_range,splice,fallocate,"
          "truncate,ftruncate,fsync,fdatasync,syncfs,sync,sync_file_range,msync,rename,renameat,renameat2,link,linkat,"
          "symlink,symlinkat,mkdir,mkdirat,mknod,mknodat,rmdir,unlink,unlinkat,chmod,fchmod,fchmodat,?fchmodat2,chown,"
          "fchown,lchown,fchownat,utimensat,setxattr,lsetxattr,fsetxattr,removexattr,ioctl,kill,tgkill,"
          "pidfd_send_signal,fork,vfork,clone,clone3")  # fmt: skip
LINE = re.compile(r"(\w+)\((.*)")


def works(*command: str) -> bool:
    return bool(shutil.which(command[0])) and subprocess.run(command, capture_output=True, check=False).returncode == 0


def traced(lines: list[str], root: Path) -> Iterator[str]:
    """Yield what the agent called, as far as it concerns the endpoint or other processes."""
    for line in lines:
        match = LINE.match(line)
        if match is None:
            continue
        name, rest = match[1], match[2]
        if name in {"fork", "vfork", "clone", "clone3"}:
            if "CLONE_THREAD" not in rest:
                yield "spawn"
            continue
        if name in {"kill", "pidfd_send_signal"}:
            yield SAME.get(name, name)
            continue
        if f"{root}/" not in rest or LOG in rest or name == "ioctl":
            continue
        if name in {"open", "openat"} and not re.search(r"O_(WRONLY|RDWR|CREAT|TRUNC)", rest):
            continue
        if name == "renameat2" and "RENAME_EXCHANGE" in rest:
            yield "exchange"
        elif name == "unlinkat" and "AT_REMOVEDIR" in rest:
            yield "rmdir"
        else:
            yield SAME.get(name, name)


@pytest.mark.skipif(not works("strace", "-o", "/dev/null", "true"), reason="needs strace, and the right to trace")
def test_no_call_that_changes_something_gets_past_the_recorder(tmp_path: Path) -> None:
    with Repository(tmp_path / "downloads") as repository, endpoint_in(tmp_path / "endpoint") as endpoint:
        for version in ("1.0.0", "1.1.0"):
            for name in COMPONENTS:
                package = Package(
                    name, version, top='preserve = ["data/**"]', hooks='pre_install = ["hooks/it"]',
                    hook_files={"hooks/it": "#!/bin/sh\nexit 0\n"},
                )  # fmt: skip
                repository.publish(package.name, package.build())
            if version == "1.0.0":
                endpoint.install(repository, *COMPONENTS)
        for name in COMPONENTS:
            data = endpoint.paths.install(name) / "data"
            data.mkdir()
            (data / "kept").write_text(name)
        trace, told = tmp_path / "trace", tmp_path / "told"
        subprocess.run(
            # Not -f: strace would wait for the programs that the agent starts.
            ["strace", "-y", "-qq", "-s", "4096", "-e", "signal=none", "-e", f"trace=execve,{TRACED}", "-o",
             trace, sys.executable, RECORDER, endpoint.root, told, "once"],
            env={**os.environ, "PYTHONPATH": f"{TESTS}:{os.environ.get('PYTHONPATH', '')}"}, cwd=TESTS.parent,
            check=True, capture_output=True, timeout=110,
        )  # fmt: skip
        assert endpoint.installed() == dict.fromkeys(COMPONENTS, "1.1.0")
        seen = list(traced(trace.read_text().splitlines(), endpoint.root))
        recorded = [SAME.get(name, name) for name in json.loads(told.read_text())]
        assert len(recorded) > 500
        assert seen == recorded
