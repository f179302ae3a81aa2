"""File names: what a name in the tree means (L3, L4, L9)."""

from __future__ import annotations

import enum
import re
import unicodedata
from collections.abc import Collection
from dataclasses import dataclass
from typing import TypeAlias

from repo_server.core.errors import NameInvalid, VersionInvalid
from repo_server.core.model import COMPONENT_PATTERN, DEFAULT_COMPONENTS, Arch, Os, Platform, ReleaseId
from repo_server.core.version import Version

EXTENSIONS = (".tar.gz", ".zip", ".exe", ".msi", ".pkg", ".bin", ".img", ".swu", ".raucb")
"""Known extensions, in the order in which one of several files of a release is preferred; "" comes last."""

PACKAGE_EXTENSIONS = (".tar.gz", ".zip")
"""What our own agent installs."""

RESERVED_AT_ROOT = ("repo.toml", "metadata", "policy", "sets", "commands")
"""Names at the root of a tree that are not releases (L2)."""

MAX_NAME_BYTES = 200
"""Bytes in a release file's name, so that ``.sha256`` and a temporary name fit into 255."""

_TEMPORARY = re.compile(
    r"""
      \..*                                  # dot-names: ours, rsync's (.name.XXXXXX), editors' swap files
    | .*~                                   # editors' backups, and rsync --backup
    | .*\.(?:tmp|temp|part|partial|filepart|crdownload|download|opdownload|swp|swx|bak|orig|rej|lock|aria2|!ut)
    | \#.*\#                                # Emacs
    | ~\$.*                                 # Office
    | (?:Thumbs\.db|desktop\.ini|ehthumbs\.db|lost\+found|System\ Volume\ Information|\$RECYCLE\.BIN)
    """,
    re.VERBOSE | re.IGNORECASE | re.DOTALL,
)
_COMPONENT = re.compile(COMPONENT_PATTERN)
_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
"""Nearly every name in a tree: nothing about it needs a closer look."""
_PLATFORMS = {(str(os), str(arch)): Platform(os, arch) for os in Os for arch in Arch}
_UNDECODED_ZERO = "\udc00"


class SidecarKind(enum.StrEnum):
    """The sidecars of a release file, by what is added to its name (L3)."""

    SHA256 = ".sha256"
    SIG = ".sig"
    CHANNEL = ".channel"
    META = ".meta"
    ROLLOUT = ".rollout"
    BLOCKED = ".blocked"


_KINDS = {str(kind): kind for kind in SidecarKind}


@dataclass(frozen=True, slots=True)
class ReleaseName:
    """A release file's name, taken apart."""

    id: ReleaseId
    extension: str

    def __str__(self) -> str:
        return f"{self.id}{self.extension}"


@dataclass(frozen=True, slots=True)
class SidecarName:
    """A sidecar's name, taken apart; ``of`` is the name of the release file."""

    of: str
    kind: SidecarKind


@dataclass(frozen=True, slots=True)
class TemporaryName:
    """A name that the tools which copy and edit files use on the way; ignored (L3)."""


Name: TypeAlias = ReleaseName | SidecarName | TemporaryName


def classify(name: str, components: Collection[str] = DEFAULT_COMPONENTS) -> Name:
    """Say what a file's name means; raise ``NameInvalid`` when it means nothing (L3, L4)."""
    if _TEMPORARY.fullmatch(name):
        return TemporaryName()
    sidecar = split_sidecar(name)
    if sidecar is None:
        return parse_release_name(name, components)
    if not _TEMPORARY.fullmatch(sidecar.of):
        parse_release_name(sidecar.of, components)
        return sidecar
    return TemporaryName()


def is_temporary(name: str) -> bool:
    """Whether a file or folder name is one that is ignored (L3)."""
    return _TEMPORARY.fullmatch(name) is not None


def split_sidecar(name: str) -> SidecarName | None:
    """Split a sidecar's name without judging the rest; ``None`` if it is not a sidecar's."""
    stem, dot, suffix = name.rpartition(".")
    kind = _KINDS.get(dot + suffix)
    return SidecarName(stem, kind) if stem and kind is not None else None


def parse_release_name(name: str, components: Collection[str] = DEFAULT_COMPONENTS) -> ReleaseName:
    """Parse ``<component>-<os>-<arch>-<version><ext>``; raise ``NameInvalid`` (L4)."""
    problem = unsafe_name(name)
    if problem is not None:
        raise NameInvalid("unsafe_name", f"the name {problem}; rename the file")
    # A version may end in .sha256 or .tmp; nobody would ever look for a release under such a name (L3).
    if split_sidecar(name) is not None or is_temporary(name):
        raise NameInvalid(
            "unrecognised_name", f"{name!r} is named like a sidecar or a temporary file; give it another version"
        )
    stem, extension = _split_extension(name)
    component, _, rest = stem.partition("-")
    os_text, _, rest = rest.partition("-")
    arch_text, _, version_text = rest.partition("-")
    if not version_text:
        raise NameInvalid(
            "unrecognised_name",
            f"{name!r} is not <component>-<os>-<arch>-<version><ext>, like service-linux-amd64-1.2.3.tar.gz; "
            "rename it or move it out of the tree",
        )
    if not _COMPONENT.fullmatch(component) or component not in components:
        raise NameInvalid(
            "unknown_component",
            f"component {component!r} is not one of {', '.join(components)}; "
            "add it to components in repo.toml or rename the file",
        )
    platform = _PLATFORMS.get((os_text, arch_text))
    if platform is None:
        raise NameInvalid(
            "unknown_platform",
            f"{os_text}-{arch_text} is not a platform; expected windows, macos or linux, then amd64 or arm64",
        )
    try:
        version = Version(version_text)
    except VersionInvalid as error:
        raise NameInvalid(error.code, f"in {name!r}: {error.message}") from None
    return ReleaseName(ReleaseId(component, version, platform), extension)


def unsafe_name(name: str) -> str | None:
    """Say what makes a name dangerous to show, store or serve, or ``None`` (L9)."""
    if len(name) <= MAX_NAME_BYTES and _PLAIN.fullmatch(name):
        return None
    if any(_is_undecoded(char) for char in name):
        return "is not valid UTF-8"
    if any(unicodedata.category(char) in {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"} for char in name):
        return "contains control or text-direction characters"
    if not name.isascii():
        return "contains characters outside ASCII"
    if len(name) > MAX_NAME_BYTES:
        return f"is longer than {MAX_NAME_BYTES} bytes"
    if "/" in name or "\\" in name or name in {"", ".", ".."}:
        return "is not a single file name"
    return None


def printable(path: str) -> str:
    """Escape everything in a path that a terminal or a log must not see as it is (L9).

    The backslash is escaped as well, so that two paths never look like one.
    """
    return "".join(char if char.isprintable() and char != "\\" else _escape(char) for char in path)


def _escape(char: str) -> str:
    if _is_undecoded(char):
        return f"\\x{ord(char) - ord(_UNDECODED_ZERO):02x}"
    return char.encode("unicode_escape").decode()


def _is_undecoded(char: str) -> bool:
    """Whether Python's surrogateescape put the character in place of a byte that is not UTF-8."""
    return "\udc80" <= char <= "\udcff"


def _split_extension(name: str) -> tuple[str, str]:
    for extension in EXTENSIONS:
        if name.endswith(extension):
            return name.removesuffix(extension), extension
    return name, ""
