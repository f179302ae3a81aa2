"""A new folder that is written below, through no link, and made durable as a whole (FR-CMP-003, promise 1)."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from agent import durable
from agent.errors import local_failure
from agent.platform.files import FILES, HeldFolder

FOLDER_MODE = 0o755
MANY_FILES = 32

Parts = tuple[str, ...]


class Landing:
    """Where a package's files land. Paths are in parts, checked before; every open is relative to a held folder."""

    def __init__(self, root: Path, held: HeldFolder) -> None:
        self._root = root
        self._held = held
        self._folders: set[Parts] = {()}
        self._files: list[Parts] = []

    def folder(self, parts: Parts) -> None:
        """Make a folder and those above it; one that is there stays."""
        with self._parent((*parts, "")):
            pass

    def file(self, parts: Parts, pieces: Iterable[bytes], mode: int) -> None:
        """Write a file that must not be there yet; raise ``LocalFailure`` when the disk refuses."""
        shown = "/".join(parts)
        with self._parent(parts) as parent, contextlib.ExitStack() as stack:
            try:
                descriptor = parent.create(parts[-1])
            except OSError as error:
                raise local_failure(error, f"create {self._root}/{shown}") from error
            stack.callback(os.close, descriptor)
            self._files.append(parts)
            for piece in pieces:
                self._write(descriptor, piece, shown)
            FILES.set_mode(descriptor, mode)

    def sync(self) -> None:
        """Make everything durable, files before the folders that name them; raise ``LocalFailure``.

        In one pass at the end, and for many files in one call: a flush each would take minutes on a slow disk.
        """
        try:
            if len(self._files) > MANY_FILES and self._held.sync_file_system():
                return
            for parts in self._files:
                with self._parent(parts) as parent:
                    parent.sync_file(parts[-1])
            for parts in sorted(self._folders, key=len, reverse=True):
                with self._parent((*parts, "")) as folder:
                    folder.sync()
            durable.sync_folder(self._root.parent)
        except OSError as error:
            raise local_failure(error, f"flush {self._root}") from error

    def _write(self, descriptor: int, piece: bytes, shown: str) -> None:
        view = memoryview(piece)
        try:
            while view:
                view = view[os.write(descriptor, view) :]
        except OSError as error:
            raise local_failure(error, f"write {self._root}/{shown}") from error

    @contextlib.contextmanager
    def _parent(self, parts: Parts) -> Iterator[HeldFolder]:
        """Open the folder that a path lies in, and make those that are missing."""
        current = self._held.again()
        try:
            for depth, part in enumerate(parts[:-1], 1):
                inner = self._enter(current, part, parts[:depth])
                current.close()
                current = inner
            yield current
        finally:
            current.close()

    def _enter(self, above: HeldFolder, part: str, parts: Parts) -> HeldFolder:
        try:
            if parts in self._folders:
                return above.enter(part)
            made = above.make(part, FOLDER_MODE)
        except OSError as error:
            raise local_failure(error, f"make the folder {self._root}/{'/'.join(parts)}") from error
        self._folders.add(parts)
        return made


@contextlib.contextmanager
def landing(root: Path) -> Iterator[Landing]:
    """Make the folder ``root``, private and new; on any exception it is removed with all that is in it."""
    try:
        root.mkdir(mode=0o700)
    except OSError as error:
        raise local_failure(error, f"make the folder {root}") from error
    try:
        held = FILES.hold(root)
        try:
            yield Landing(root, held)
        finally:
            held.close()
    except BaseException as reason:
        try:
            FILES.remove_tree(root)
        except OSError as error:
            reason.add_note(f"what was unpacked could not be removed: {error}")
        raise
