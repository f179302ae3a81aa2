"""``statement`` and ``sign``: the digest and the signatures of a release file (L10, L11, L20, L21, FR-SRV-004)."""

from __future__ import annotations

import base64
import binascii
import contextlib
import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from securesystemslib.exceptions import Error as SecureSystemsLibError
from securesystemslib.signer._crypto_signer import CryptoSigner
from securesystemslib.signer._key import Key
from securesystemslib.signer._signature import Signature

from repo_server.core.errors import FormatError
from repo_server.core.keys import ReleaseKeys, Verified
from repo_server.core.model import ReleaseSignature
from repo_server.core.names import PACKAGE_EXTENSIONS, ReleaseName, SidecarKind, parse_release_name
from repo_server.core.sidecars import format_sha256, format_sig, parse_sha256, parse_sig
from repo_server.core.statement import Statement, check_product
from repo_server.tree import treeio
from repotool.archive import UNREADABLE, read_manifest
from repotool.digests import Digest
from repotool.errors import Refused, ToolError, Usage
from repotool.inspect import archive_faults
from repotool.sidecar_files import read_sidecar

EXTERNAL_SECONDS = 300
"""How long an external command may take; somebody may have to touch a token."""

_P256_BYTES = 32


class ReleaseSigner(Protocol):
    """Signs statements with one key. Raises ``ToolError`` when it cannot; may be called again."""

    @property
    def key(self) -> Key:
        """The public key."""
        ...

    def sign(self, statement: bytes) -> bytes:
        """Return the signature in the form that TUF uses for the key's scheme."""
        ...


@dataclass(frozen=True, slots=True)
class FileSigner:
    """Signs with a key file."""

    signer: CryptoSigner

    @property
    def key(self) -> Key:
        """The public key."""
        return self.signer.public_key

    def sign(self, statement: bytes) -> bytes:
        """Sign with the key in memory."""
        return bytes.fromhex(self.signer.sign(statement).signature)


@dataclass(frozen=True, slots=True)
class ExternalSigner:
    """Signs with a command that gets the statement on stdin and prints the signature, raw or in base64."""

    command: str
    key: Key

    def sign(self, statement: bytes) -> bytes:
        """Run the command and return what it printed if it verifies; raise ``ToolError`` or ``Refused``."""
        arguments = _words(self.command)
        try:
            done = subprocess.run(  # noqa: S603 -- the operator's own command, without a shell
                arguments, input=statement, capture_output=True, timeout=EXTERNAL_SECONDS, check=False
            )
        except OSError as error:
            raise ToolError(f"the signing command {self.command!r} cannot be started: {error}") from None
        except subprocess.TimeoutExpired:
            raise ToolError(f"the signing command {self.command!r} did not end in {EXTERNAL_SECONDS} s") from None
        if done.returncode != 0:
            said = done.stderr.decode(errors="replace").strip()
            raise ToolError(f"the signing command {self.command!r} failed with {done.returncode}: {said:.2000}")
        for signature in _readings(done.stdout, self.key):
            if verifies(self.key, signature, statement):
                return signature
        raise Refused(
            f"what {self.command!r} printed ({len(done.stdout)} bytes) is not a signature of the statement by key "
            f"{self.key.keyid} ({self.key.scheme}), raw or in base64; check that --public-key belongs to it"
            f"{_hint(self.key)}"
        )


def _words(command: str) -> list[str]:
    try:
        if words := shlex.split(command):
            return words
        fault = "is empty"
    except ValueError as error:
        fault = f"cannot be read: {error}"
    raise Usage(f"--external {command!r} {fault}; expected a command as a shell takes it")


def statement_of(name: ReleaseName, product: str, digest: Digest) -> Statement:
    """Return what is signed for a release file; raise ``StatementInvalid`` (L20)."""
    return Statement(check_product(product), name.id, digest.sha256, digest.size)


def any_release_name(filename: str) -> ReleaseName:
    """Parse a release file's name whatever components a tree knows; raise ``NameInvalid`` (L4)."""
    return parse_release_name(filename, (filename.partition("-")[0],))


def check_identity(path: Path, name: ReleaseName) -> None:
    """Check that a package says of itself what its name says; raise ``Refused`` (L40)."""
    if name.extension not in PACKAGE_EXTENSIONS:
        return
    try:
        manifest = read_manifest(path)
    except FormatError as error:
        raise Refused(f"{path} is not a package: {error.message}") from None
    except ToolError as error:
        raise Refused(str(error)) from None
    if manifest.id != name.id:
        raise Refused(
            f"{path} says in its package.toml that it is {manifest.id}, its name says {name.id}; "
            "pack it again or give it its own name"
        )
    try:
        fault = next(archive_faults(path, name.id.platform.os, manifest.payload), None)
    except UNREADABLE as error:
        fault = f"it cannot be read to its end ({error})"
    if fault is not None:
        raise Refused(f"{path} would be refused by every agent: {fault}. Make it with `repotool pack` (L41)")


def check_key(key: Key, keys: ReleaseKeys) -> None:
    """Check that a key is one of the product's release keys; raise ``Refused`` (L21)."""
    if key.keyid not in keys.keys:
        known = ", ".join(sorted(keys.keys))
        raise Refused(
            f"key {key.keyid} is not a release key of {keys.product} ({known}); use release.pem of `repotool init`"
        )


def merged(
    before: Sequence[ReleaseSignature], statement: Statement, signer: ReleaseSigner, keys: ReleaseKeys | None
) -> tuple[ReleaseSignature, ...]:
    """Add a signature to those that stand, in place of an older one by the same key.

    Others stay if they verify, or if their key is not known here: the digest they belong to has not changed.
    """
    payload = statement.to_bytes()
    mine = ReleaseSignature(signer.key.keyid, base64.b64encode(signer.sign(payload)).decode())
    known = {} if keys is None else keys.keys
    kept = [
        item
        for item in before
        if item.key_id != mine.key_id
        and (item.key_id not in known or verifies(known[item.key_id], base64.b64decode(item.signature), payload))
    ]
    return (*kept, mine)


def standing_signatures(path: Path, digest: Digest) -> tuple[ReleaseSignature, ...]:
    """Return the signatures beside a file if they belong to these bytes: ``.sha256`` says so, or is not there."""
    said = read_sidecar(path, SidecarKind.SHA256)
    signatures = read_sidecar(path, SidecarKind.SIG)
    if signatures is None:
        return ()
    try:
        if said is not None and parse_sha256(said, path.name) != digest.sha256:
            return ()
        return parse_sig(signatures)
    except FormatError:
        # A malformed sidecar is replaced: signing is how it is mended.
        return ()


def write_signatures(path: Path, digest: Digest, signatures: tuple[ReleaseSignature, ...]) -> None:
    """Write ``.sig``, then ``.sha256``, which marks the release as complete (L18)."""
    for kind, data in (
        (SidecarKind.SIG, format_sig(signatures)),
        (SidecarKind.SHA256, format_sha256(digest.sha256, path.name)),
    ):
        if read_sidecar(path, kind) != data:
            treeio.write_atomic(path.with_name(f"{path.name}{kind}"), data)


def enough(keys: ReleaseKeys, statement: Statement, signatures: Sequence[ReleaseSignature], path: Path) -> None:
    """Check signatures against the threshold; raise ``Refused`` (L21)."""
    result = keys.verify(statement, signatures)
    if not isinstance(result, Verified):
        raise Refused(f"{path}: {result.code}: {result.message}")


def verifies(key: Key, signature: bytes, payload: bytes) -> bool:
    """Whether a signature is one of the payload by the key."""
    try:
        key.verify_signature(Signature(key.keyid, signature.hex()), payload)
    except SecureSystemsLibError:
        return False
    return True


def _hint(key: Key) -> str:
    if key.keytype != "rsa":
        return ""
    return ", and that it signs with PSS and SHA-256 (openssl dgst -sha256 -sigopt rsa_padding_mode:pss -sign key.pem)"


def _readings(printed: bytes, key: Key) -> list[bytes]:
    """Return what a signer's output can mean: raw or base64 (also URL-safe); ECDSA as DER or as r and s."""
    readings = [printed]
    text = b"".join(printed.split()).translate(bytes.maketrans(b"-_", b"+/"))
    with contextlib.suppress(binascii.Error):
        readings.append(base64.b64decode(text + b"=" * (-len(text) % 4), validate=True))
    if key.keytype == "ecdsa":
        readings += [_der(item) for item in readings if len(item) == 2 * _P256_BYTES]
    return readings


def _der(pair: bytes) -> bytes:
    return encode_dss_signature(int.from_bytes(pair[:_P256_BYTES], "big"), int.from_bytes(pair[_P256_BYTES:], "big"))
