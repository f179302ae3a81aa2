"""The release keys that a product's TUF root names, and what they say of a release (L21, L22)."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from securesystemslib.exceptions import Error as SecureSystemsLibError
from securesystemslib.signer._key import Key, SSlibKey
from securesystemslib.signer._signature import Signature

from repo_server.core.errors import FormatError, KeysInvalid
from repo_server.core.model import ReleaseSignature
from repo_server.core.statement import Statement, check_product

PRODUCT_FIELD = "x-product"
KEYS_FIELD = "x-release-keys"
MIN_RSA_BITS = 2048
MAX_KEYS = 32
ACCEPTED = frozenset(
    {("ecdsa", "ecdsa-sha2-nistp256"), ("rsa", "rsassa-pss-sha256"), ("ed25519", "ed25519")},
)
"""Key type and scheme of a release key (L22, NFR-SEC-002)."""

_KEY_ID = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Verified:
    """Enough release keys signed the statement."""

    signatures: tuple[ReleaseSignature, ...]
    """Those that verified."""


@dataclass(frozen=True, slots=True)
class NotVerified:
    """Too few did; ``code`` is ``unknown_key`` or ``bad_signature``."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class ReleaseKeys:
    """The keys that may sign releases of one product, and how many of them must."""

    product: str
    keys: Mapping[str, Key]
    threshold: int

    def verify(self, statement: Statement, signatures: Sequence[ReleaseSignature]) -> Verified | NotVerified:
        """Check signatures over a statement against the threshold (L21)."""
        payload = statement.to_bytes()
        known = [signature for signature in signatures if signature.key_id in self.keys]
        good = tuple(signature for signature in known if _verifies(self.keys[signature.key_id], signature, payload))
        signers = {signature.key_id for signature in good}
        if len(signers) >= self.threshold:
            return Verified(good)
        have = f"{len(signers)} of {self.threshold} needed release keys signed this file under this name"
        if not known:
            return NotVerified("unknown_key", f"{have}; no key id in .sig is a release key of {self.product}")
        return NotVerified(
            "bad_signature", f"{have}; sign it again with `repotool sign` (the name and the bytes are both signed)"
        )


def release_keys(fields: Mapping[str, Any]) -> ReleaseKeys:
    """Read the release keys from the unrecognised fields of a TUF root; raise ``KeysInvalid`` (L22)."""
    product, block = fields.get(PRODUCT_FIELD), fields.get(KEYS_FIELD)
    if not isinstance(product, str) or not isinstance(block, dict) or not isinstance(block.get("keys"), dict):
        raise _invalid(f"the root has no {PRODUCT_FIELD} and {KEYS_FIELD}; make it with `repotool init`")
    try:
        check_product(product)
    except FormatError as error:
        raise _invalid(error.message) from None
    if not 1 <= len(block["keys"]) <= MAX_KEYS:
        raise _invalid(f"{KEYS_FIELD} names {len(block['keys'])} keys; expected 1 to {MAX_KEYS}")
    keys = {key_id: _key(key_id, value) for key_id, value in block["keys"].items()}
    # One key under two ids would count twice towards the threshold, however differently its PEM is wrapped.
    if len({_canonical(key).keyval["public"] for key in keys.values()}) != len(keys):
        raise _invalid("two key ids name the same key")
    threshold = block.get("threshold")
    if not isinstance(threshold, int) or isinstance(threshold, bool) or not 1 <= threshold <= len(keys):
        raise _invalid(f"threshold {threshold!r:.20} is not a number from 1 to {len(keys)}")
    return ReleaseKeys(product, keys, threshold)


def release_keys_fields(product: str, keys: Sequence[Key], threshold: int) -> dict[str, Any]:
    """Return the unrecognised fields of a root for these keys; raise ``KeysInvalid`` (L22)."""
    fields = {
        PRODUCT_FIELD: product,
        KEYS_FIELD: {"keys": {key.keyid: key.to_dict() for key in keys}, "threshold": threshold},
    }
    release_keys(fields)
    return fields


def _key(key_id: str, value: Any) -> Key:
    if not _KEY_ID.fullmatch(key_id):
        raise _invalid(f"key id {key_id!r:.80} is not 64 hex digits; no line of a .sig could name it")
    try:
        key: Key = SSlibKey.from_dict(key_id, dict(value))
        if (key.keytype, key.scheme) not in ACCEPTED:
            raise _invalid(f"{key.keytype}/{key.scheme} is not accepted; expected one of {sorted(ACCEPTED)}")
        really = _canonical(key)
    except KeysInvalid:
        raise
    except (KeyError, TypeError, AttributeError, ValueError, SecureSystemsLibError, UnsupportedAlgorithm) as error:
        raise _invalid(f"key {key_id}: {error}") from None
    if (really.keytype, really.scheme) != (key.keytype, key.scheme):
        raise _invalid(f"key {key_id} says {key.keytype}/{key.scheme} and is {really.keytype}/{really.scheme}")
    return key


def _canonical(key: Key) -> SSlibKey:
    """Return the key as its own bytes say it is; raise ``KeysInvalid`` or ``ValueError``."""
    text = key.keyval["public"]
    if key.keytype == "ed25519":
        return SSlibKey.from_crypto(Ed25519PublicKey.from_public_bytes(bytes.fromhex(text)))
    public = load_pem_public_key(text.encode())
    if isinstance(public, RSAPublicKey) and public.key_size < MIN_RSA_BITS:
        raise _invalid(f"an RSA key needs {MIN_RSA_BITS} bits or more; this one has {public.key_size}")
    return SSlibKey.from_crypto(public)


def _verifies(key: Key, signature: ReleaseSignature, payload: bytes) -> bool:
    try:
        raw = base64.b64decode(signature.signature, validate=True)
        key.verify_signature(Signature(signature.key_id, raw.hex()), payload)
    except (binascii.Error, ValueError, SecureSystemsLibError):
        return False
    return True


def _invalid(why: str) -> KeysInvalid:
    return KeysInvalid("invalid_release_keys", f"release keys: {why}")
