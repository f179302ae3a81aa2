"""The release statement: the exact bytes that a release key signs (L20, L21)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from repo_server.core.errors import FormatError, StatementInvalid
from repo_server.core.model import COMPONENT_PATTERN, Arch, Os, Platform, ReleaseId
from repo_server.core.version import Version

HEADER = "commandit-release-v1"
_PRODUCT = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_COMPONENT = re.compile(COMPONENT_PATTERN)
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SIZE = re.compile(r"0|[1-9][0-9]{0,18}")
_FIELDS = ("product", "component", "version", "os", "arch", "sha256", "size")


@dataclass(frozen=True, slots=True)
class Statement:
    """That these bytes are this release of this product; ``size`` in bytes (L20)."""

    product: str
    id: ReleaseId
    sha256: str
    size: int

    def to_bytes(self) -> bytes:
        """Return the eight lines, each ended by a line feed (L20)."""
        platform = self.id.platform
        values = (self.product, self.id.component, self.id.version, platform.os, platform.arch, self.sha256, self.size)
        lines = [HEADER, *(f"{name}: {value}" for name, value in zip(_FIELDS, values, strict=True))]
        return "".join(f"{line}\n" for line in lines).encode()


def parse_statement(data: bytes) -> Statement:
    """Parse a statement; raise ``StatementInvalid`` unless it is exactly as L20 says."""
    try:
        text = data.decode("ascii")
    except UnicodeDecodeError:
        raise _invalid("it is not ASCII") from None
    lines = text.split("\n")
    if lines[0] != HEADER or len(lines) != len(_FIELDS) + 2 or lines[-1]:
        raise _invalid(f"it is not {HEADER!r} and {len(_FIELDS)} lines, each ended by a line feed")
    values = {}
    for name, line in zip(_FIELDS, lines[1:-1], strict=True):
        prefix = f"{name}: "
        if not line.startswith(prefix):
            raise _invalid(f"expected a line starting {prefix!r}")
        values[name] = line.removeprefix(prefix)
    if not _SHA256.fullmatch(values["sha256"]) or not _SIZE.fullmatch(values["size"]):
        raise _invalid("sha256 or size is malformed")
    if not _COMPONENT.fullmatch(values["component"]):
        raise _invalid("component is malformed")
    try:
        release = ReleaseId(
            values["component"], Version(values["version"]), Platform(Os(values["os"]), Arch(values["arch"]))
        )
    except FormatError as error:
        raise _invalid(error.message) from None
    except ValueError as error:
        raise _invalid(f"{error}") from None
    return Statement(check_product(values["product"]), release, values["sha256"], int(values["size"]))


def check_product(product: str) -> str:
    """Return the product's name; raise ``StatementInvalid`` if it may not stand in a statement."""
    if not _PRODUCT.fullmatch(product):
        raise StatementInvalid(
            "malformed_statement", f"product {product!r:.80} is malformed; expected {_PRODUCT.pattern}"
        )
    return product


def _invalid(why: str) -> StatementInvalid:
    return StatementInvalid("malformed_statement", f"not a release statement: {why}")
