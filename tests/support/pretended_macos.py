"""A child Python that takes itself for macOS, as far as that is POSIX without what only Linux has.

``imports`` prints which modules of the agent refuse to be imported; ``run ROOT PROGRAM`` is the resident agent, whose
children are that program.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys

from support.pretended_windows import import_everything, import_what_is_not_ours

MISSING = {
    os: """
        pidfd_open pipe2 posix_fadvise posix_fallocate memfd_create eventfd getxattr setxattr listxattr removexattr
        sched_getaffinity sched_setaffinity O_PATH O_NOATIME O_TMPFILE O_DIRECT copy_file_range splice setresuid
        getresuid setns unshare getrandom
    """,
    signal: "pidfd_send_signal SIGRTMIN SIGRTMAX SIGPOLL SIGSTKFLT sigtimedwait sigwaitinfo",
    select: "epoll",
}


def become_macos() -> None:
    """Take away what only Linux has."""
    import_what_is_not_ours()
    for module, names in MISSING.items():
        for name in names.split():
            with contextlib.suppress(AttributeError):
                delattr(module, name)
    sys.platform = "darwin"


def main(verb: str, *words: str) -> None:
    """Do what the command line says."""
    become_macos()
    if verb == "imports":
        sys.stdout.write(json.dumps(import_everything()))
        return
    import agent.__main__

    root, sys.executable = words
    sys.argv = ["commandit-updater", "--root-dir", root, "run"]
    agent.__main__.main()


if __name__ == "__main__":
    main(*sys.argv[1:])
