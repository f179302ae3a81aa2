"""Release keys and what they say of a release, with real keys and real openssl (L11, L20 to L22, NFR-SEC-002)."""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from core.making import ARM, LINUX, refusal
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_public_key,
)
from securesystemslib.signer import CryptoSigner, SSlibKey

from repo_server.core.errors import KeysInvalid
from repo_server.core.keys import (
    KEYS_FIELD,
    MAX_KEYS,
    PRODUCT_FIELD,
    NotVerified,
    ReleaseKeys,
    Verified,
    release_keys,
    release_keys_fields,
)
from repo_server.core.model import Platform, ReleaseId, ReleaseSignature
from repo_server.core.sidecars import format_sig, parse_sig
from repo_server.core.statement import Statement
from repo_server.core.version import Version

CONTENT = b"foo"
KINDS = {
    "ECDSA P-256": CryptoSigner.generate_ecdsa,
    "RSA 3072": lambda: CryptoSigner.generate_rsa(size=3072),
    "RSA 2048": lambda: CryptoSigner.generate_rsa(size=2048),
    "Ed25519": CryptoSigner.generate_ed25519,
}
EVERY_KIND = pytest.mark.parametrize("kind", KINDS)


@cache
def signer(kind: str, number: int = 0) -> CryptoSigner:
    """Return a key of a kind; RSA keys take a while to make, so each is made once."""
    return KINDS[kind]()


def statement(
    component: str = "service",
    version: str = "1.2.3",
    platform: Platform = LINUX,
    content: bytes = CONTENT,
    product: str = "commandit",
) -> Statement:
    identity = ReleaseId(component, Version(version), platform)
    return Statement(product, identity, hashlib.sha256(content).hexdigest(), len(content))


def signed(key: CryptoSigner, of: Statement | None = None) -> ReleaseSignature:
    raw = bytes.fromhex(key.sign((of or statement()).to_bytes()).signature)
    return ReleaseSignature(key.public_key.keyid, base64.b64encode(raw).decode())


def trusting(*keys: CryptoSigner, threshold: int = 1) -> ReleaseKeys:
    return release_keys(release_keys_fields("commandit", [key.public_key for key in keys], threshold))


ONE, TWO, THREE, STRANGER = (CryptoSigner.generate_ecdsa() for _ in range(4))


@EVERY_KIND
def test_a_release_signed_by_a_release_key_is_verified(kind: str) -> None:
    """L21, NFR-SEC-002."""
    key = signer(kind)
    signatures = parse_sig(format_sig((signed(key),)))
    assert trusting(key).verify(statement(), signatures) == Verified(signatures)


@EVERY_KIND
@pytest.mark.parametrize(
    "other",
    [
        pytest.param(statement(content=b"fop"), id="other bytes of the same size"),
        pytest.param(statement(content=b"foo "), id="other bytes"),
        pytest.param(statement(version="1.2.4"), id="another version"),
        pytest.param(statement(component="probe"), id="another component"),
        pytest.param(statement(platform=ARM), id="another platform"),
        pytest.param(statement(product="other"), id="another product"),
    ],
)
def test_a_signature_holds_for_one_file_under_one_name_only(kind: str, other: Statement) -> None:
    """L21 and the threat model: a renamed file is no release, and neither are other bytes under its name."""
    found = trusting(signer(kind)).verify(other, [signed(signer(kind))])
    assert isinstance(found, NotVerified)
    assert found.code == "bad_signature"


def test_a_signature_by_an_unknown_key_counts_for_nothing() -> None:
    """L21."""
    found = trusting(ONE).verify(statement(), [signed(STRANGER)])
    assert isinstance(found, NotVerified)
    assert found.code == "unknown_key"
    assert "no key id in .sig is a release key of commandit" in found.message


def test_a_stranger_cannot_sign_in_the_name_of_a_release_key() -> None:
    forged = replace(signed(STRANGER), key_id=ONE.public_key.keyid)
    found = trusting(ONE).verify(statement(), [forged])
    assert isinstance(found, NotVerified)
    assert found.code == "bad_signature"


def test_no_signature_at_all_verifies_nothing() -> None:
    assert isinstance(trusting(ONE).verify(statement(), []), NotVerified)


@pytest.mark.parametrize(
    ("signers", "enough"),
    [
        ([ONE, TWO], True),
        ([ONE, TWO, THREE], True),
        ([STRANGER, ONE, THREE], True),
        ([ONE], False),
        ([ONE, ONE], False),
        ([ONE, STRANGER], False),
        ([STRANGER], False),
    ],
)
def test_two_of_three_means_two_different_release_keys(signers: list[CryptoSigner], enough: bool) -> None:
    """L21: lines by other keys are ignored, so that keys can be rotated; one key never counts twice."""
    found = trusting(ONE, TWO, THREE, threshold=2).verify(statement(), [signed(key) for key in signers])
    assert isinstance(found, Verified) == enough
    if isinstance(found, Verified):
        assert {item.key_id for item in found.signatures} <= {key.public_key.keyid for key in (ONE, TWO, THREE)}
    else:
        assert "of 2 needed release keys" in found.message


def test_a_bad_line_beside_enough_good_ones_does_no_harm() -> None:
    """L21: and is not among those that verified."""
    found = trusting(ONE, TWO).verify(statement(), [signed(ONE), signed(TWO, statement(version="9.9.9"))])
    assert found == Verified((found.signatures[0],))
    assert found.signatures[0].key_id == ONE.public_key.keyid


@pytest.mark.parametrize("text", ["", "AAAA", "%%%", base64.b64encode(b"\0" * 64).decode(), "TU"])
def test_garbage_instead_of_a_signature_is_a_bad_signature(text: str) -> None:
    for key in (ONE, signer("Ed25519"), signer("RSA 2048")):
        found = trusting(key).verify(statement(), [ReleaseSignature(key.public_key.keyid, text)])
        assert isinstance(found, NotVerified)
        assert found.code == "bad_signature"


# The block of keys in a root (L22)


def fields(*keys: CryptoSigner, threshold: Any = 1) -> dict[str, Any]:
    block = {"keys": {key.public_key.keyid: key.public_key.to_dict() for key in keys}, "threshold": threshold}
    return {PRODUCT_FIELD: "commandit", KEYS_FIELD: block}


def entry(public: Any, keytype: str = "ecdsa", scheme: str = "ecdsa-sha2-nistp256") -> dict[str, Any]:
    return {"keytype": keytype, "scheme": scheme, "keyval": {"public": public}}


def with_key(value: Any, key_id: str = "ab" * 32) -> dict[str, Any]:
    return {PRODUCT_FIELD: "commandit", KEYS_FIELD: {"keys": {key_id: value}, "threshold": 1}}


def pem(private: Any) -> str:
    return private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def test_release_keys_are_read_from_a_roots_extra_fields() -> None:
    """L22."""
    keys = release_keys(fields(ONE, TWO, threshold=2))
    assert (keys.product, keys.threshold) == ("commandit", 2)
    assert set(keys.keys) == {ONE.public_key.keyid, TWO.public_key.keyid}


@pytest.mark.parametrize(
    "broken",
    [
        {},
        {PRODUCT_FIELD: "commandit"},
        {KEYS_FIELD: fields(ONE)[KEYS_FIELD]},
        fields(ONE) | {PRODUCT_FIELD: 7},
        fields(ONE) | {PRODUCT_FIELD: "Command IT\n"},
        fields(ONE) | {KEYS_FIELD: []},
        fields(ONE) | {KEYS_FIELD: {"keys": [], "threshold": 1}},
        fields(),
        fields(*(CryptoSigner.generate_ed25519() for _ in range(MAX_KEYS + 1))),
    ],
)
def test_a_root_without_usable_release_keys_is_refused(broken: dict[str, Any]) -> None:
    """L22."""
    assert refusal(release_keys, broken) == "invalid_release_keys"


@pytest.mark.parametrize("threshold", [0, -1, 3, 1.0, "1", True, None, 10**400])
def test_a_threshold_that_cannot_be_met_or_means_nothing_is_refused(threshold: Any) -> None:
    """L22: zero would make every file a release."""
    assert refusal(release_keys, fields(ONE, TWO, threshold=threshold)) == "invalid_release_keys"


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (7, "key"),
        ([], "key"),
        ({}, "key"),
        ({"keytype": "ecdsa", "scheme": "ecdsa-sha2-nistp256"}, "key"),
        (entry(7), "public key string"),
        (entry("not a key"), "key"),
        (entry(""), "key"),
        (entry("zz" * 32, "ed25519", "ed25519"), "key"),
        (entry("ab" * 31, "ed25519", "ed25519"), "key"),
        (entry(pem(ec.generate_private_key(ec.SECP384R1()))), "is ecdsa/ecdsa-sha2-nistp384"),
        (entry(pem(ec.generate_private_key(ec.SECP256K1()))), "unsupported curve"),
        (entry(pem(ed25519.Ed25519PrivateKey.generate())), "is ed25519/ed25519"),
        (entry(pem(ed448.Ed448PrivateKey.generate())), "unsupported key"),
        (entry(pem(ec.generate_private_key(ec.SECP384R1())), scheme="ecdsa-sha2-nistp384"), "not accepted"),
        (entry(ONE.public_key.keyval["public"], scheme="ed25519"), "key"),
        (entry(ONE.public_key.keyval["public"], "rsa", "rsassa-pss-sha256"), "is ecdsa/ecdsa-sha2-nistp256"),
        (entry("ab" * 32, "sphincs", "sphincs-shake-128s"), "key"),
    ],
)
def test_a_key_that_is_not_what_it_says_or_not_accepted_is_refused(value: Any, says: str) -> None:
    """L22: now, and not when it fails to verify."""
    with pytest.raises(KeysInvalid, match=says):
        release_keys(with_key(value))


@pytest.mark.parametrize("scheme", ["rsa-pkcs1v15-sha256", "rsassa-pss-sha512"])
def test_rsa_is_accepted_with_pss_and_sha256_only(scheme: str) -> None:
    """L22."""
    public = signer("RSA 2048").public_key.keyval["public"]
    assert refusal(release_keys, with_key(entry(public, "rsa", "rsassa-pss-sha256"))) is None
    with pytest.raises(KeysInvalid, match="not accepted"):
        release_keys(with_key(entry(public, "rsa", scheme)))


def test_small_rsa_keys_are_refused() -> None:
    """L22, NFR-SEC-002: 2048 bits at least."""
    small = rsa.generate_private_key(65537, 1024)  # noqa: S505 -- too small on purpose
    with pytest.raises(KeysInvalid, match="2048 bits or more; this one has 1024"):
        release_keys(with_key(entry(pem(small), "rsa", "rsassa-pss-sha256")))


@pytest.mark.parametrize("key_id", ["", "one", "AB" * 32, "ab" * 31, "ab" * 32 + "\n"])
def test_a_key_id_that_no_sig_could_name_is_refused(key_id: str) -> None:
    """L11, L22."""
    with pytest.raises(KeysInvalid, match="64 hex digits"):
        release_keys(with_key(ONE.public_key.to_dict(), key_id))


@pytest.mark.parametrize("kind", ["ECDSA P-256", "Ed25519"])
@pytest.mark.parametrize(
    "respell",
    [
        pytest.param(lambda text: text, id="the same text"),
        pytest.param(lambda text: text + "\n", id="a line feed more"),
        pytest.param(lambda text: text.replace("\n", "\r\n"), id="other line ends"),
        pytest.param(str.upper, id="capital letters"),
        pytest.param(lambda text: "a comment\n" + text, id="text before the key"),
    ],
)
def test_one_key_cannot_count_twice_under_two_ids(kind: str, respell: Any) -> None:
    """L21: however differently the two are spelt; a spelling that is no key at all is refused as well."""
    public = signer(kind).public_key
    keys = {"aa" * 32: public.to_dict(), "bb" * 32: public.to_dict()}
    keys["bb" * 32]["keyval"] = {"public": respell(public.keyval["public"])}
    block = {PRODUCT_FIELD: "commandit", KEYS_FIELD: {"keys": keys, "threshold": 2}}
    assert refusal(release_keys, block) == "invalid_release_keys"


def test_fields_that_no_reader_would_accept_are_not_written() -> None:
    assert refusal(release_keys_fields, "commandit", [ONE.public_key, TWO.public_key], 3) == "invalid_release_keys"
    assert refusal(release_keys_fields, "commandit", [ONE.public_key, ONE.public_key], 2) == "invalid_release_keys"


# openssl, as an operator or an HSM would call it

openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
PSS = ["-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:digest"]


@dataclass(frozen=True)
class OpenSsl:
    """How openssl makes a key of a kind, signs with it and verifies."""

    generate: list[str]
    sign: list[str]
    options: list[str]


CALLS = {
    "ECDSA P-256": OpenSsl(["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"], ["dgst", "-sha256"], []),
    "RSA 3072": OpenSsl(["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:3072"], ["dgst", "-sha256"], PSS),
    "Ed25519": OpenSsl(["-algorithm", "ED25519"], ["pkeyutl", "-rawin"], []),
}


def run(folder: Path, *arguments: str) -> bytes:
    return subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True, timeout=60).stdout


@openssl
@pytest.mark.parametrize("kind", CALLS)
def test_what_openssl_signs_is_verified(kind: str, tmp_path: Path) -> None:
    """L20, L21: with a key that openssl made, over the statement's bytes in a file."""
    call = CALLS[kind]
    run(tmp_path, "genpkey", *call.generate, "-out", "key.pem")
    public = SSlibKey.from_crypto(load_pem_public_key(run(tmp_path, "pkey", "-in", "key.pem", "-pubout")))
    (tmp_path / "statement").write_bytes(statement().to_bytes())
    if call.sign[0] == "dgst":
        run(tmp_path, *call.sign, *call.options, "-sign", "key.pem", "-out", "sig", "statement")
    else:
        run(tmp_path, *call.sign, "-sign", "-inkey", "key.pem", "-in", "statement", "-out", "sig")
    text = base64.b64encode((tmp_path / "sig").read_bytes()).decode()
    signatures = parse_sig(f"{public.keyid} {text}\n".encode())
    keys = release_keys(release_keys_fields("commandit", [public], 1))
    assert isinstance(keys.verify(statement(), signatures), Verified)
    assert isinstance(keys.verify(statement(content=b"bar"), signatures), NotVerified)


@openssl
@pytest.mark.parametrize("kind", CALLS)
def test_what_we_sign_openssl_verifies(kind: str, tmp_path: Path) -> None:
    """L20, L21."""
    key, call = signer(kind), CALLS[kind]
    public = load_pem_public_key(key.public_key.keyval["public"].encode()) if kind != "Ed25519" else None
    if public is None:
        public = ed25519.Ed25519PublicKey.from_public_bytes(bytes.fromhex(key.public_key.keyval["public"]))
    (tmp_path / "pub.pem").write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    (tmp_path / "statement").write_bytes(statement().to_bytes())
    (tmp_path / "sig").write_bytes(base64.b64decode(signed(key).signature))
    if call.sign[0] == "dgst":
        run(tmp_path, *call.sign, *call.options, "-verify", "pub.pem", "-signature", "sig", "statement")
    else:
        run(tmp_path, *call.sign, "-verify", "-pubin", "-inkey", "pub.pem", "-in", "statement", "-sigfile", "sig")


@openssl
def test_an_rsa_signature_with_the_older_padding_is_not_accepted(tmp_path: Path) -> None:
    """L22: PKCS #1 v1.5, which openssl writes unless told otherwise."""
    private = rsa.generate_private_key(65537, 2048)
    public = SSlibKey.from_crypto(private.public_key())
    (tmp_path / "key.pem").write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (tmp_path / "statement").write_bytes(statement().to_bytes())
    run(tmp_path, "dgst", "-sha256", "-sign", "key.pem", "-out", "sig", "statement")
    text = base64.b64encode((tmp_path / "sig").read_bytes()).decode()
    keys = release_keys(release_keys_fields("commandit", [public], 1))
    assert isinstance(keys.verify(statement(), [ReleaseSignature(public.keyid, text)]), NotVerified)
