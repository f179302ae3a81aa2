"""What the names in a tree mean, each stem worked out once (L3, L4, L9)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from repo_server.core.errors import NameInvalid
from repo_server.core.names import ReleaseName, SidecarKind, is_temporary, parse_release_name
from repo_server.tree.groups import Files, not_regular
from repo_server.tree.walk import Entry, Fault, Odd, join

_SUFFIXES = frozenset(str(kind) for kind in SidecarKind)


@dataclass(slots=True)
class Sorted:
    """The entries of one folder by what they are."""

    groups: dict[str, tuple[ReleaseName, Files]] = field(default_factory=dict)
    """Release file's name → its name taken apart, and which of its files are there."""
    faults: dict[str, Fault] = field(default_factory=dict)
    """Names that mean nothing."""


@dataclass(slots=True)
class Naming:
    """Says what names mean while the components stay the same; gives what ``core.names.classify`` gives."""

    components: tuple[str, ...]
    _stems: dict[str, ReleaseName | NameInvalid | None] = field(default_factory=dict)

    def sort(self, folder: str, entries: Mapping[str, Entry]) -> Sorted:
        """Sort a folder's entries."""
        found = Sorted()
        groups = found.groups
        for name, entry in entries.items():
            stem, suffix = split(name)
            group = groups.get(stem)
            if group is not None:
                group[1][suffix] = entry
                continue
            meaning = self.meaning(stem)
            if isinstance(meaning, ReleaseName):
                groups[stem] = (meaning, {suffix: entry})
            elif meaning is not None:
                found.faults[name] = _fault(join(folder, name), meaning, entry)
        return found

    def meaning(self, stem: str) -> ReleaseName | NameInvalid | None:
        """Return what a name without a sidecar's suffix means; ``None``: it is ignored (L3)."""
        try:
            return self._stems[stem]
        except KeyError:
            meaning = self._stems[stem] = self._work_out(stem)
            return meaning

    def is_file_name(self, name: str) -> bool:
        """Whether a name is a release file's or a sidecar's."""
        return isinstance(self.meaning(split(name)[0]), ReleaseName)

    @property
    def size(self) -> int:
        """How many names are remembered."""
        return len(self._stems)

    def forget(self, stems: Iterable[str]) -> None:
        """Drop names that are no longer in the tree."""
        keep = set(stems)
        self._stems = {stem: meaning for stem, meaning in self._stems.items() if stem in keep}

    def _work_out(self, stem: str) -> ReleaseName | NameInvalid | None:
        try:
            return parse_release_name(stem, self.components)
        except NameInvalid as error:
            # A temporary name is no release's either.
            return None if is_temporary(stem) else error


def split(name: str) -> tuple[str, str]:
    """Split a name into the release file's name and a sidecar's suffix, "" if it is no sidecar's."""
    dot = name.rfind(".")
    suffix = name[dot:]
    return (name[:dot], suffix) if suffix in _SUFFIXES and dot > 0 else (name, "")


def too_deep(folder: str, entries: Iterable[str], limit: int) -> dict[str, Fault]:
    """Say of each file that it lies below the deepest folder (L1)."""
    message = f"it lies deeper than {limit} folders; move it up or raise limits.max_depth in repo.toml"
    return {
        name: Fault(join(folder, name), "too_deep", message) for name in entries if not is_temporary(split(name)[0])
    }


def _fault(path: str, error: NameInvalid, entry: Entry) -> Fault:
    if isinstance(entry, Odd) and error.code != "unsafe_name":
        return not_regular(path, entry)
    return Fault(path, error.code, error.message)
