"""What the agent accepts: release keys of the pinned root decide, never the server's words (promise 2, L20 to L22)."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from securesystemslib.signer import CryptoSigner
from support.trees import PRODUCT, Tree, root_metadata
from tuf.api.metadata import Metadata, Root, Targets
from tuf.api.serialization.json import JSONSerializer

from agent.codes import Code
from agent.errors import ConfigInvalid, TrustRefused
from agent.floor import Floors
from agent.trust import Accepted, Trust, load_root, parse_root
from repo_server.core.keys import KEYS_FIELD, PRODUCT_FIELD
from repo_server.core.model import Arch, Os, Platform, ReleaseId
from repo_server.core.statement import Statement
from repo_server.core.version import Version
from repo_server.core.wire import Action, SignatureEntry, Update

LINUX = Platform(Os.LINUX, Arch.AMD64)
ROOT, ONLINE, STRANGER = (CryptoSigner.generate_ecdsa() for _ in range(3))
KEYS = [CryptoSigner.generate_ecdsa(), CryptoSigner.generate_ed25519(), CryptoSigner.generate_rsa(size=2048)]
CONTENT = b"content"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def trust(threshold: int = 1, floors: Floors | None = None) -> Trust:
    return Trust(parse_root(root_metadata(ROOT, ONLINE, KEYS, threshold)), floors or Floors())


def sign(statement: Statement, signer: CryptoSigner) -> SignatureEntry:
    raw = bytes.fromhex(signer.sign(statement.to_bytes()).signature)
    return SignatureEntry(signer.public_key.keyid, base64.b64encode(raw).decode())


@dataclass(frozen=True)
class Offer:
    """An offer, right in everything but what a test changes."""

    name: str = "service"
    version: str = "1.2.3"
    platform: Platform = LINUX
    product: str = PRODUCT
    sha256: str = SHA256
    size: int = len(CONTENT)
    signers: Sequence[CryptoSigner] = field(default_factory=lambda: KEYS[:1])
    action: Action = Action.UPDATE
    changes: dict[str, Any] = field(default_factory=dict)
    """Of the offer after it was signed."""

    def update(self) -> Update:
        statement = Statement(
            self.product, ReleaseId(self.name, Version(self.version), self.platform), self.sha256, self.size
        )
        signatures = tuple(sign(statement, signer) for signer in self.signers)
        first = signatures[0] if signatures else SignatureEntry("", "")
        fields: dict[str, Any] = {
            "name": self.name,
            "version": self.version,
            "url": "/v1/packages/x",
            "hash_sha256": self.sha256,
            "signature": first.signature,
            "key_id": first.key_id,
            "size": self.size,
            "signatures": signatures,
            "action": self.action,
            "dependencies": (),
            "path": f"2026/{self.name}-{self.platform}-{self.version}.tar.gz",
        }
        return Update(**{**fields, **self.changes})


def accept(offer: Offer, made: Trust | None = None, installed: str | None = "1.0.0") -> Accepted:
    version = None if installed is None else Version(installed)
    return (made or trust()).accept(offer.update(), LINUX, version, ["service", "ui"])


def refused(offer: Offer, code: Code, made: Trust | None = None, installed: str | None = "1.0.0") -> str:
    with pytest.raises(TrustRefused) as caught:
        accept(offer, made, installed)
    assert caught.value.code is code, caught.value.message
    return caught.value.message


@pytest.mark.parametrize("key", KEYS, ids=["ecdsa", "ed25519", "rsa"])
def test_a_release_signed_by_a_release_key_is_accepted(key: CryptoSigner) -> None:
    """FR-UPD-006, NFR-SEC-002: every kind of key that L22 allows."""
    accepted = accept(Offer(signers=[key]))
    assert accepted.id == ReleaseId("service", Version("1.2.3"), LINUX)
    assert (accepted.sha256, accepted.size, accepted.action) == (SHA256, len(CONTENT), Action.UPDATE)
    assert accepted.key_ids == (key.public_key.keyid,)


def test_an_offer_with_its_first_signature_only_is_accepted() -> None:
    """FR-SRV-001: ``signature`` and ``key_id`` of the source's schema."""
    assert accept(Offer(changes={"signatures": ()})).key_ids == (KEYS[0].public_key.keyid,)


FORGED: dict[str, Offer] = {
    "other bytes": Offer(changes={"hash_sha256": "a" * 64}),
    "another size": Offer(changes={"size": 8}),
    "another version": Offer(
        changes={"version": "1.2.4", "path": "service-linux-amd64-1.2.4.tar.gz"},
    ),
    "another component": Offer(changes={"name": "ui", "path": "ui-linux-amd64-1.2.3.tar.gz"}),
    "another product": Offer(product="other"),
    "no signature": Offer(signers=[], changes={}),
    "a stranger's key": Offer(signers=[STRANGER]),
    "the online key": Offer(signers=[ONLINE]),
    "the root key": Offer(signers=[ROOT]),
    "garbage": Offer(changes={"signatures": (SignatureEntry(KEYS[0].public_key.keyid, "AAAA"),)}),
    "no base64": Offer(changes={"signatures": (SignatureEntry(KEYS[0].public_key.keyid, "§"),)}),
}


@pytest.mark.parametrize("what", FORGED)
def test_a_signature_is_refused_that_is_by_or_for(what: str) -> None:
    """L20, L21: the agent says itself what must have been signed; no word of the server is believed."""
    refused(FORGED[what], Code.SIGNATURE_INVALID)


def test_a_signature_under_a_release_keys_id_by_another_key_is_refused() -> None:
    statement = Statement(PRODUCT, ReleaseId("service", Version("1.2.3"), LINUX), SHA256, len(CONTENT))
    forged = SignatureEntry(KEYS[0].public_key.keyid, sign(statement, STRANGER).signature)
    refused(Offer(changes={"signatures": (forged,)}), Code.SIGNATURE_INVALID)


def test_a_threshold_needs_that_many_different_keys() -> None:
    """L21: twice the same key is one key, whatever strangers add."""
    two = trust(threshold=2)
    accepted = accept(Offer(signers=[STRANGER, KEYS[0], KEYS[1]]), two)
    assert set(accepted.key_ids) == {KEYS[0].public_key.keyid, KEYS[1].public_key.keyid}
    refused(Offer(signers=[KEYS[0], KEYS[0]]), Code.SIGNATURE_INVALID, two)
    refused(Offer(signers=[KEYS[0], STRANGER]), Code.SIGNATURE_INVALID, two)
    refused(Offer(signers=[KEYS[0]]), Code.SIGNATURE_INVALID, two)


def test_a_release_for_another_platform_is_refused_though_rightly_signed() -> None:
    """L20: the statement is built with the device's own platform."""
    windows = Platform(Os.WINDOWS, Arch.AMD64)
    refused(Offer(platform=windows), Code.NOT_REQUESTED)
    path = "service-linux-amd64-1.2.3.tar.gz"
    refused(Offer(platform=windows, changes={"path": path}), Code.SIGNATURE_INVALID)


def test_a_component_that_was_not_asked_for_is_refused_though_rightly_signed() -> None:
    refused(Offer(name="probe"), Code.NOT_REQUESTED)


@pytest.mark.parametrize(
    "changes",
    [
        {"version": "1.2.3+build"},
        {"version": "latest"},
        {"version": "1.2.3\n"},
        {"hash_sha256": "x"},
        {"hash_sha256": SHA256.upper()},
        {"hash_sha256": f"{SHA256}\n"},
        {"size": 0},
        {"size": -7},
        {"size": 2**70},
        {"path": "readme.txt"},
        {"path": "ui-linux-amd64-1.2.3.tar.gz"},
        {"path": "service-linux-amd64-1.2.4.tar.gz"},
        {"signatures": (SignatureEntry("a", "b"),) * 65},
    ],
    ids=lambda changes: str(changes)[:60],
)
def test_an_offer_that_contradicts_itself_is_malformed(changes: dict[str, Any]) -> None:
    refused(Offer(changes=changes), Code.OFFER_INVALID)


def test_a_file_that_is_no_package_is_not_supported() -> None:
    """L4: an .msi is served but not installed by our agent."""
    refused(Offer(changes={"path": "service-linux-amd64-1.2.3.msi"}), Code.NOT_SUPPORTED)


VERSIONS: dict[str, tuple[str | None, str, Action, str | None, Code | None]] = {
    "a first install": (None, "1.2.3", Action.UPDATE, None, None),
    "a higher version": ("1.2.2", "1.2.3", Action.UPDATE, None, None),
    "the release after its candidate": ("1.2.3-rc.1", "1.2.3", Action.UPDATE, None, None),
    "the same version": ("1.2.3", "1.2.3", Action.UPDATE, None, Code.DOWNGRADE_REFUSED),
    "the same version as a recall": ("1.2.3", "1.2.3", Action.ROLLBACK, None, Code.DOWNGRADE_REFUSED),
    "a lower version": ("1.10.0", "1.2.3", Action.UPDATE, None, Code.DOWNGRADE_REFUSED),
    "the candidate after its release": ("1.2.3", "1.2.3-rc.1", Action.UPDATE, None, Code.DOWNGRADE_REFUSED),
    "a recall to a lower version": ("1.10.0", "1.2.3", Action.ROLLBACK, None, None),
    "a recall to a higher version": ("1.0.0", "1.2.3", Action.ROLLBACK, None, None),
    "a recall to the floor": ("1.10.0", "1.2.3", Action.ROLLBACK, "1.2.3", None),
    "a recall below the floor": ("1.10.0", "1.2.3", Action.ROLLBACK, "1.2.4", Code.BELOW_FLOOR),
    "an update below the floor": ("1.0.0", "1.2.3", Action.UPDATE, "1.2.4", Code.BELOW_FLOOR),
    "a first install below the floor": (None, "1.2.3", Action.UPDATE, "1.2.4", Code.BELOW_FLOOR),
}


@pytest.mark.parametrize("what", VERSIONS)
def test_versions_go_up_except_in_a_recall_and_never_below_the_floor(what: str) -> None:
    """L51, design §4."""
    installed, offered, action, floor, code = VERSIONS[what]
    lowest = {} if floor is None else {"service": Version(floor), "ui": Version("9.0.0")}
    made = trust(floors=Floors(MappingProxyType(lowest)))
    offer = Offer(version=offered, action=action)
    if code is None:
        assert accept(offer, made, installed).id.version == Version(offered)
    else:
        refused(offer, code, made, installed)


def test_while_the_floor_file_is_unreadable_updates_go_on_and_recalls_wait() -> None:
    """Nobody can say how low is too low."""
    lost = trust(floors=Floors(damage="holds only NUL bytes", known=False))
    accept(Offer(), lost)
    assert "NUL bytes" in refused(Offer(action=Action.ROLLBACK), Code.DOWNGRADE_REFUSED, lost, "2.0.0")


_TEXT = st.text(max_size=20)


@given(
    changes=st.fixed_dictionaries(
        {},
        optional={
            "name": st.sampled_from(["service", "ui", "../x"]) | _TEXT,
            "version": st.sampled_from(["1.2.4", "0.0.1", "1.2.3-rc.1"]) | _TEXT,
            "hash_sha256": st.sampled_from(["b" * 64]) | _TEXT,
            "size": st.integers(),
            "path": _TEXT,
            "key_id": _TEXT,
            "signatures": st.lists(st.builds(SignatureEntry, _TEXT, _TEXT), max_size=3).map(tuple),
            "action": st.sampled_from(Action),
        },
    )
)
@settings(deadline=None, max_examples=200)
def test_nothing_is_accepted_but_what_was_signed(changes: dict[str, Any]) -> None:
    """Promise 2, by property: whatever the server changes, it is this very release or a refusal."""
    try:
        accepted = accept(Offer(changes=changes))
    except TrustRefused:
        return
    assert (str(accepted.id), accepted.sha256, accepted.size) == ("service-linux-amd64-1.2.3", SHA256, len(CONTENT))


def test_the_root_of_a_real_tree_is_read(tmp_path: Path) -> None:
    """L22: product, release keys and threshold are in its signed part."""
    tree = Tree(tmp_path / "tree")
    path = tmp_path / "root.json"
    path.write_bytes(tree.root_json)
    root = load_root(path)
    assert (root.keys.product, root.keys.threshold, root.version) == (PRODUCT, 1, 1)
    assert list(root.keys.keys) == [tree.release_key.public_key.keyid]
    assert root.expires > datetime.now(UTC)


def changed(**fields: Any) -> bytes:
    """Return a root whose signed part was changed after signing."""
    raw = json.loads(root_metadata(ROOT, ONLINE, KEYS))
    raw["signed"].update(fields)
    return json.dumps(raw).encode()


def resigned(**fields: Any) -> bytes:
    """Return a root that its own key signed with other fields."""
    metadata = Metadata[Root].from_bytes(root_metadata(ROOT, ONLINE, KEYS))
    metadata.signed.unrecognized_fields.update(fields)
    metadata.sign(ROOT)
    return metadata.to_bytes(JSONSerializer())


def two_of_two(signers: list[CryptoSigner]) -> bytes:
    """Return a root whose root role needs two keys, signed by some."""
    metadata = Metadata[Root].from_bytes(root_metadata(ROOT, ONLINE, KEYS))
    metadata.signed.add_key(STRANGER.public_key, "root")
    metadata.signed.roles["root"].threshold = 2
    metadata.signatures.clear()
    for signer in signers:
        metadata.sign(signer, append=True)
    return metadata.to_bytes(JSONSerializer())


def targets() -> bytes:
    metadata = Metadata(Targets(expires=datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)))
    metadata.sign(ROOT)
    return metadata.to_bytes(JSONSerializer())


BAD_ROOTS = {
    "empty": b"",
    "garbage": os.urandom(100),
    "no metadata": b"{}",
    "metadata of another type": targets(),
    "nested too deeply": b"[" * 100_000,
    "too large": b" " * (512 * 1024 + 1),
    "changed after signing": changed(version=2),
    "with a release key added after signing": changed(**{KEYS_FIELD: {"keys": {}, "threshold": 1}}),
    "signed by somebody else": root_metadata(STRANGER, ONLINE, KEYS).replace(
        STRANGER.public_key.keyid.encode(), ROOT.public_key.keyid.encode()
    ),
    "signed by too few of its keys": two_of_two([ROOT]),
    "signed twice by one key": two_of_two([ROOT, ROOT]),
    "without release keys": resigned(**{KEYS_FIELD: None}),
    "without a product": resigned(**{PRODUCT_FIELD: None}),
    "with a threshold of zero": resigned(
        **{KEYS_FIELD: {"keys": {key.public_key.keyid: key.public_key.to_dict() for key in KEYS}, "threshold": 0}}
    ),
}


@pytest.mark.parametrize("what", BAD_ROOTS)
def test_a_root_is_refused_that_is(what: str) -> None:
    """L22: an agent that cannot read its root installs nothing, and says which file to provide."""
    with pytest.raises(ConfigInvalid, match="repotool init") as caught:
        parse_root(BAD_ROOTS[what])
    assert caught.value.code is Code.ROOT_INVALID


def test_a_root_signed_by_its_threshold_is_read() -> None:
    assert parse_root(two_of_two([ROOT, STRANGER])).keys.product == PRODUCT


def test_a_root_that_others_can_change_or_that_is_missing_is_refused(tmp_path: Path) -> None:
    """FR-CFG-004: who can write it decides what runs here."""
    path = tmp_path / "root.json"
    with pytest.raises(ConfigInvalid) as missing:
        load_root(path)
    assert missing.value.code is Code.ROOT_INVALID
    path.write_bytes(root_metadata(ROOT, ONLINE, KEYS))
    path.chmod(0o666)
    with pytest.raises(ConfigInvalid, match="chmod") as unsafe:
        load_root(path)
    assert unsafe.value.code is Code.CONFIG_UNSAFE
