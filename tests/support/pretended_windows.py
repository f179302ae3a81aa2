"""A child Python that takes itself for Windows, and runs the agent's commands as its parent says, line by line.

Whatever the standard library and the dependencies need is imported first; then every call and constant that Windows
does not have goes, ``sys.platform`` is ``win32``, and ``advapi32``, ``kernel32`` and ``shell32`` are those of
``simulators.windows``. Files, folders and programs stay real ones of this machine. Each line of the input is a JSON
list of arguments; each line of the output says how that came out. ``!import`` imports every module of the agent,
``!services`` tells what runs, ``!service`` is the agent's own, ``!handles`` says what was not closed.
"""

from __future__ import annotations

import ast
import contextlib
import ctypes
import importlib
import io
import json
import os
import platform
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

AGENT = Path(__file__).resolve().parent.parent.parent / "agent"
MISSING_MODULES = ("fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty")
MISSING: dict[ModuleType, str] = {
    os: """
        geteuid getuid getegid getgid getgroups setuid setgid seteuid setegid setsid getsid setpgid getpgid getpgrp
        setpgrp killpg fork forkpty posix_spawn posix_spawnp pidfd_open chown lchown fchown fchmod lchmod pread pwrite
        preadv pwritev readv writev pipe2 set_blocking get_blocking statvfs fstatvfs sync fdatasync mkfifo mknod nice
        wait wait3 wait4 waitid WNOHANG WUNTRACED uname ttyname openpty chroot fchdir sendfile memfd_create eventfd
        getxattr setxattr listxattr removexattr posix_fallocate posix_fadvise lockf sched_getaffinity sched_yield
        O_NOFOLLOW O_DIRECTORY O_NONBLOCK O_NDELAY O_CLOEXEC O_SYNC O_DSYNC O_NOCTTY O_PATH O_NOATIME O_TMPFILE O_ASYNC
        register_at_fork ctermid getpriority setpriority initgroups WIFEXITED WEXITSTATUS WIFSIGNALED WTERMSIG
    """,
    signal: """
        SIGKILL SIGHUP SIGCHLD SIGUSR1 SIGPIPE SIGALRM SIGQUIT SIGSTOP SIGCONT pthread_sigmask pidfd_send_signal alarm
        setitimer sigwait siginterrupt pause
    """,
    select: "poll epoll",
    socket: "AF_UNIX SO_PEERCRED",
    time: "clock_gettime tzset",
}


def import_what_is_not_ours() -> None:
    """Import all that the agent imports, so that only its own code meets the other system."""
    for path in [*AGENT.rglob("*.py"), *(AGENT.parent / "repo_server" / "core").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [str(node.module)]
            for name in names:
                if name.split(".")[0] not in {"agent", "repo_server", "msvcrt", "winreg"}:
                    importlib.import_module(name)


def forget_posix() -> None:
    """Take away what Windows does not have; the simulator and ``subprocess`` keep it, for they stand for Windows."""
    simulators = importlib.import_module("simulators.windows")
    services = importlib.import_module("simulators.windows_services")
    vars(services)["subprocess"] = SimpleNamespace(**vars(subprocess))
    for module in (simulators, importlib.import_module("simulators.windows_waits"), subprocess):
        vars(module)["os"] = SimpleNamespace(**vars(os))
        vars(module)["signal"] = SimpleNamespace(**vars(signal))
    vars(shutil).update(_use_fd_functions=False, os=SimpleNamespace(**vars(os)))
    signal.SIGBREAK = signal.SIGUSR2  # type: ignore[attr-defined]
    for module, names in MISSING.items():
        for name in names.split():
            with contextlib.suppress(AttributeError):
                delattr(module, name)
    for name in ("open", "mkdir", "stat", "unlink", "rename", "rmdir", "chmod", "link", "symlink"):
        setattr(os, name, without_folders(getattr(os, name)))
    for name in MISSING_MODULES:
        sys.modules[name] = None  # type: ignore[assignment]


def without_folders(function: Any) -> Any:
    """Return a function of ``os`` that takes no ``dir_fd``."""

    def call(*arguments: Any, **named: Any) -> Any:
        if named.get("dir_fd") is not None or named.get("src_dir_fd") is not None:
            raise NotImplementedError("dir_fd unavailable on this platform")
        return function(*arguments, **named)

    return call


def become_windows(simulator: Any) -> None:
    """Put the simulator in the libraries' place."""
    api = simulator.api()
    libraries = {"advapi32": api.advapi32, "kernel32": api.kernel32, "shell32": api.shell32}
    nobody = {name: lambda *_: 0 for name in importlib.import_module("agent.platform.windows_sessions").WTSAPI32}
    libraries["wtsapi32"] = SimpleNamespace(**nobody)
    ctypes.WinDLL = lambda name, use_last_error: libraries[name]  # type: ignore[attr-defined] # noqa: ARG005
    ctypes.get_last_error = api.last_error  # type: ignore[attr-defined]
    msvcrt = ModuleType("msvcrt")
    vars(msvcrt).update(open_osfhandle=simulator.descriptor_of, get_osfhandle=simulator.handle_of)
    sys.modules["msvcrt"] = msvcrt
    sys.modules["winreg"] = registry()

    class Popen(subprocess.Popen):  # type: ignore[type-arg]
        """A program of Windows: its flags mean that it stands by itself."""

        def __init__(self, *arguments: Any, creationflags: int = 0, **named: Any) -> None:
            for name in ("start_new_session", "umask", "preexec_fn"):
                assert name not in named, f"{name} is no argument on Windows"
            super().__init__(*arguments, start_new_session=bool(creationflags), **named)

    vars(subprocess)["Popen"] = Popen
    platform.system, platform.machine = lambda: "Windows", lambda: "AMD64"
    sys.platform = "win32"


def registry() -> ModuleType:
    """Return a registry in which every value is there: the name of its key and its own."""
    winreg = ModuleType("winreg")
    vars(winreg).update(
        HKEY_LOCAL_MACHINE=0, KEY_READ=0x2_0019, KEY_WOW64_64KEY=0x100,
        OpenKey=lambda _root, key, _reserved, _access: contextlib.nullcontext(key),
        QueryValueEx=lambda key, name: (f"{key} {name}", 1),
    )  # fmt: skip
    return winreg


def import_everything() -> dict[str, str]:
    """Import every module of the agent; return those that refuse, with what they say."""
    refused = {}
    for path in sorted(AGENT.rglob("*.py")):
        name = ".".join(["agent", *path.relative_to(AGENT).with_suffix("").parts]).removesuffix(".__init__")
        try:
            importlib.import_module(name)
        except ImportError as error:
            refused[name] = str(error)
    return refused


def run(arguments: list[str]) -> dict[str, Any]:
    """Run one command of the agent in this process; ``click`` captures nothing, so its output is."""
    from agent.cli import commands

    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            code = commands.main(arguments, prog_name="commandit-updater", standalone_mode=False)
        except SystemExit as error:
            code = error.code
    return {"exit": code, "said": said.getvalue()}


def be_a_service(simulator: Any, script: str) -> dict[str, Any]:
    """Be the agent's service, whose children are what a script says; somebody asks for a check, then Windows stops it.

    The children's own lines are for the parent to read.
    """
    import agent.__main__

    simulator.by_windows, sys.executable = True, script
    seen = Path(f"{script}.said")

    def wait_for(said: str) -> None:
        while not (seen.exists() and said in seen.read_text()):
            time.sleep(0.02)

    def asked_for_check() -> bytes:
        """Return the answer; the child before may still be there."""
        while simulator.pipe is None or simulator.pipe.under_way != "connect":
            time.sleep(0.02)
        simulator.call_pipe()
        simulator.say_to_pipe(b"check\n")
        while not simulator.pipe.heard:
            time.sleep(0.02)
        simulator.hang_up_pipe()
        return bytes(simulator.pipe.heard)

    def outside() -> None:
        wait_for("once")
        while b"accepted" not in asked_for_check():
            time.sleep(0.05)
        wait_for("checknow")
        simulator.control(1, 0, None, None)

    thread = threading.Thread(target=outside)
    thread.start()
    sys.argv = ["commandit-updater", "service"]
    try:
        agent.__main__.main()
    except SystemExit as error:
        code = error.code
    thread.join()
    return {"exit": code, "states": [one[0] for one in simulator.statuses]}


def services(simulator: Any) -> dict[str, Any]:
    """Return the services, name → (starts at boot, process id)."""
    simulator.catch_up()
    return {
        name: [one.start_type == 2, None if one.process is None else one.process.pid]
        for name, one in simulator.services.items()
    }


def main(folder: str) -> None:
    """Serve the parent until its end of the pipe is closed."""
    import_what_is_not_ours()
    from simulators.windows import WindowsSimulator

    simulator = WindowsSimulator(folder, {"PATH": os.environ["REAL_PATH"]})
    # What the agent takes for itself.
    sys.executable = os.environ["AGENT_PROGRAM"]
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    forget_posix()
    become_windows(simulator)
    try:
        for line in sys.stdin:
            asked = json.loads(line)
            if asked == ["!import"]:
                answer: Any = import_everything()
            elif asked == ["!services"]:
                answer = services(simulator)
            elif asked[0] == "!service":
                answer = be_a_service(simulator, asked[1])
            elif asked == ["!handles"]:
                answer = [str(one) for one in simulator.open_handles.values()]
            else:
                answer = run(asked)
            answers.write(json.dumps(answer) + "\n")
    finally:
        simulator.power_off()


if __name__ == "__main__":
    main(sys.argv[1])
