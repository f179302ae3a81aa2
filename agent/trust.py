"""What the agent accepts: the release keys of its pinned root decide, never the server's words (design §4, promise 2).

The chain of TUF metadata from the pinned root joins ``Trust.accept`` in a later version of this module. Until then the
root's own expiry is not enforced: an agent that cannot follow a newer root would only lock itself out.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from tuf.api._payload import Root
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata

from agent.codes import Code
from agent.config import check_protected, read_regular
from agent.errors import ConfigInvalid, TrustRefused, local_failure
from agent.floor import Floors
from repo_server.core.errors import FormatError
from repo_server.core.keys import NotVerified, ReleaseKeys, release_keys
from repo_server.core.model import COMPONENT_PATTERN, Platform, ReleaseId, ReleaseSignature
from repo_server.core.names import PACKAGE_EXTENSIONS, ReleaseName, parse_release_name
from repo_server.core.statement import Statement
from repo_server.core.version import Version
from repo_server.core.wire import Action, Update

MAX_ROOT_BYTES = 512 * 1024
MAX_SIGNATURES = 64
_COMPONENT = re.compile(COMPONENT_PATTERN)
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class PinnedRoot:
    """The root of trust that the agent was provisioned with (L22)."""

    keys: ReleaseKeys
    version: int
    expires: datetime


@dataclass(frozen=True, slots=True)
class Accepted:
    """A release that enough release keys signed, and that may be installed here."""

    id: ReleaseId
    sha256: str
    size: int
    action: Action
    key_ids: tuple[str, ...]
    """Of the signatures that verified."""


def load_root(path: Path) -> PinnedRoot:
    """Read the pinned ``root.json``; raise ``ConfigInvalid`` (ROOT_INVALID, CONFIG_UNSAFE) or ``LocalFailure``."""
    try:
        data = read_regular(path, MAX_ROOT_BYTES + 1)
    except FileNotFoundError:
        raise _no_root(f"{path} does not exist") from None
    except OSError as error:
        raise local_failure(error, f"read {path}") from error
    # Who can write the root decides what runs here.
    check_protected(path.parent, secret=False)
    check_protected(path, secret=False)
    return parse_root(data)


def parse_root(data: bytes) -> PinnedRoot:
    """Read a root that is signed by a threshold of its own keys; raise ``ConfigInvalid`` (ROOT_INVALID, L22)."""
    if len(data) > MAX_ROOT_BYTES:
        raise _no_root(f"root.json has more than {MAX_ROOT_BYTES} bytes")
    try:
        metadata = Metadata[Root].from_bytes(data)
        if not isinstance(metadata.signed, Root):
            raise _no_root(f"it is TUF metadata of type {metadata.signed.type!r}, not a root")
        metadata.signed.verify_delegate(Root.type, metadata.signed_bytes, metadata.signatures)
        keys = release_keys(metadata.signed.unrecognized_fields)
    except RepositoryError as error:
        raise _no_root(f"root.json is malformed, or not signed by its own keys: {error}") from error
    except FormatError as error:
        raise _no_root(error.message) from error
    except RecursionError:
        raise _no_root("root.json is nested too deeply") from None
    return PinnedRoot(keys, metadata.signed.version, metadata.signed.expires)


@dataclass(frozen=True, slots=True)
class Trust:
    """The pinned root and the floors: everything that a decision about an offer rests on."""

    root: PinnedRoot
    floors: Floors

    def accept(
        self,
        update: Update,
        platform: Platform,
        installed: Version | None,
        requested: Collection[str],
        *,
        again: bool = False,
    ) -> Accepted:
        """Return what may be downloaded and installed; raise ``TrustRefused``.

        ``installed`` is the component's version, ``requested`` are the names that were asked for; with ``again`` the
        very version that is installed may come once more (FR-RIN-001), never a lower one. The statement is
        built here from what will be installed, so that a signature for anything else never fits (L20, L21, L51).
        """
        if update.name not in requested:
            raise TrustRefused(Code.NOT_REQUESTED, f"an offer for {update.name!r:.80}, which was not asked for")
        release = _release(update, platform)
        signatures = _signatures(update)
        statement = Statement(self.root.keys.product, release, update.hash_sha256, update.size)
        verdict = self.root.keys.verify(statement, signatures)
        if isinstance(verdict, NotVerified):
            raise TrustRefused(Code.SIGNATURE_INVALID, f"{release}: {verdict.message}")
        self._check_version(release, update.action, installed, again=again)
        key_ids = tuple(dict.fromkeys(signature.key_id for signature in verdict.signatures))
        return Accepted(release, update.hash_sha256, update.size, update.action, key_ids)

    def _check_version(self, release: ReleaseId, action: Action, installed: Version | None, *, again: bool) -> None:
        floor = self.floors.of(release.component)
        if floor is not None and release.version < floor:
            raise TrustRefused(Code.BELOW_FLOOR, f"{release} is below the floor {floor}")
        if installed is None or release.version > installed:
            return
        if release.version == installed:
            if again:
                return
            raise TrustRefused(Code.DOWNGRADE_REFUSED, f"{release} is offered and is what is installed")
        if action is not Action.ROLLBACK:
            raise TrustRefused(
                Code.DOWNGRADE_REFUSED, f"{release} is lower than the installed {installed}, and no recall"
            )
        if not self.floors.known:
            raise TrustRefused(
                Code.DOWNGRADE_REFUSED,
                f"{release} is lower than the installed {installed}, and the floor file is damaged, so that nobody can "
                f"say how low is too low: {self.floors.damage}",
            )


def _release(update: Update, platform: Platform) -> ReleaseId:
    try:
        if not _COMPONENT.fullmatch(update.name):
            raise _malformed(update, "the component's name is malformed")
        release = ReleaseId(update.name, Version(update.version), platform)
        name = parse_release_name(update.path.rpartition("/")[2], (update.name,))
    except FormatError as error:
        raise _malformed(update, error.message) from error
    if not _SHA256.fullmatch(update.hash_sha256) or not 0 < update.size < 2**63:
        raise _malformed(update, "the digest or the size is malformed")
    _check_file(update, release, name)
    return release


def _check_file(update: Update, release: ReleaseId, name: ReleaseName) -> None:
    if name.id.platform != release.platform:
        raise TrustRefused(Code.NOT_REQUESTED, f"{update.path!r:.200} is for {name.id.platform}, not for this device")
    # Equality is by precedence; the text stands in the statement.
    if str(name.id) != str(release):
        raise _malformed(update, f"its file {update.path!r:.200} is another release than {release}")
    if name.extension not in PACKAGE_EXTENSIONS:
        raise TrustRefused(
            Code.NOT_SUPPORTED,
            f"{update.path!r:.200} is no package that this agent installs; expected {' or '.join(PACKAGE_EXTENSIONS)}",
        )


def _signatures(update: Update) -> tuple[ReleaseSignature, ...]:
    if len(update.signatures) > MAX_SIGNATURES:
        raise _malformed(update, f"it has {len(update.signatures)} signatures; at most {MAX_SIGNATURES} are read")
    listed = [ReleaseSignature(item.key_id, item.signature) for item in update.signatures]
    return tuple(listed or [ReleaseSignature(update.key_id, update.signature)])


def _malformed(update: Update, why: str) -> TrustRefused:
    return TrustRefused(Code.OFFER_INVALID, f"the offer {update.name!r:.80} {update.version!r:.80}: {why}")


def _no_root(why: str) -> ConfigInvalid:
    return ConfigInvalid(Code.ROOT_INVALID, f"{why}; provision the root.json that `repotool init` wrote")
