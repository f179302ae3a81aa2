"""Half-copied releases: every order of arrival, every stage, by full and by incremental scans (L24, promise 1)."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.scanning import Scans, full, offered
from support.trees import Tree

from repo_server.core.sidecars import format_sha256

NAME = "service-linux-amd64-1.2.3.tar.gz"
CONTENT = b"the bytes of a release"
WAYS = ("in place", "renamed")


def parts(tree: Tree) -> dict[str, list[bytes]]:
    """Return each file's content in two chunks, cut where the first half is as misleading as can be."""
    digest = format_sha256(hashlib.sha256(CONTENT).hexdigest(), NAME)
    sig = tree.sig(NAME, CONTENT)
    return {
        "": [CONTENT[:9], CONTENT[9:]],
        ".sha256": [digest[:-1], digest[-1:]],
        ".sig": [sig[: len(sig) // 2], sig[len(sig) // 2 :]],
        ".channel": [b"alph", b"a\n"],
    }


def interleavings(files: list[str]) -> Iterator[tuple[str, ...]]:
    """Yield every order in which the two chunks of each file can be written."""
    return iter(sorted(set(itertools.permutations([*files, *files]))))


def test_no_order_of_writing_chunks_ever_offers_half_a_release(tmp_path: Path) -> None:
    """L24: all 2,520 ways to interleave two halves of four files, one incremental scanner through all of them.

    ``.channel`` decides who gets the release, so it counts as half as long as it is being written: what is offered
    before it is there is what an absent ``.channel`` means, and its first half is never taken for a channel.
    """
    tree = Tree(tmp_path / "tree")
    tree.add("ui-linux-amd64-1.0.0.tar.gz")
    tree.add("ui-linux-amd64-1.0.1.tar.gz")
    tree.add("ui-linux-amd64-1.0.2.tar.gz")
    content = parts(tree)
    scans = Scans(tree.root)
    scans.full()
    for order in interleavings(list(content)):
        written = dict.fromkeys(content, 0)
        for suffix in order:
            with (tree.root / f"{NAME}{suffix}").open("ab") as file:
                file.write(content[suffix][written[suffix]])
            written[suffix] += 1
            found = offered(scans.update(f"{NAME}{suffix}"))
            # The last byte of .sha256 is its line feed, which it may lack (L10).
            whole = written[""] == 2 and written[".sha256"] >= 1 and written[".sig"] == 2 and written[".channel"] != 1
            assert (NAME in found) == whole, order
            if whole:
                assert found[NAME].channel == ("alpha" if written[".channel"] else "stable")
        for suffix in content:
            (tree.root / f"{NAME}{suffix}").unlink()
        assert NAME not in offered(scans.update(*(f"{NAME}{suffix}" for suffix in content)))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("order", list(itertools.permutations(["", ".sha256", ".sig"])))
def test_every_order_of_files_is_offered_at_the_end_and_not_before(
    tmp_path: Path, order: tuple[str, ...], way: str
) -> None:
    """L24: also by a scanner that sees the stage for the first time, and with the real clock while it is young."""
    tree = Tree(tmp_path / "tree")
    content = {suffix: b"".join(chunks) for suffix, chunks in parts(tree).items()}
    scans = Scans(tree.root)
    scans.full()
    for number, suffix in enumerate(order):
        path = tree.root / f"{NAME}{suffix}"
        if way == "renamed":
            temporary = path.with_name(f".{path.name}.Xy12z")
            temporary.write_bytes(content[suffix])
            temporary.rename(path)
        else:
            path.write_bytes(content[suffix])
        last = number == len(order) - 1
        for result in (scans.update(path), full(tree.root)):
            assert (NAME in offered(result)) == last
