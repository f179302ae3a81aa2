"""What the disk says, as sentences that say what to do."""

from __future__ import annotations

import errno

_ADVICE = {
    errno.EACCES: "no permission for {path}; run repotool as the user who owns the tree (or the keys)",
    errno.EPERM: "not permitted on {path}; run repotool as the user who owns the tree (or the keys)",
    errno.EROFS: "{path} is on a read-only file system; work on the origin's tree, not on a mirror",
    errno.ENOSPC: "the disk of {path} is full; make room and run the same command again",
    errno.EDQUOT: "the disk quota for {path} is used up; make room and run the same command again",
    errno.ENOENT: "{path} does not exist; check the path",
    errno.EEXIST: "{path} is there already, and is something else; take another path",
    errno.ENOTDIR: "a part of {path} is not a folder; check the path",
    errno.ELOOP: "{path} leads through a symbolic link; the tree holds real files and folders only (L29)",
    errno.EIO: "the disk fails at {path}; check it before anything else",
    errno.EMFILE: "too many open files; raise `ulimit -n`",
}


def of_os_error(error: OSError) -> str:
    """Return a sentence for an error of the operating system."""
    path = error.filename2 or error.filename or "the file"
    advice = _ADVICE.get(error.errno or 0)
    if advice is None:
        return f"{error.strerror or error} ({path})"
    return advice.format(path=path if isinstance(path, str) else str(path))


def of(error: Exception) -> str:
    """Return an expected error's message."""
    return of_os_error(error) if isinstance(error, OSError) else str(error)


def count(number: int, thing: str) -> str:
    """Return "1 file", "2 files"."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"
