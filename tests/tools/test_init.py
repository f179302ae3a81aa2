"""``repotool init``: keys, a root that stock TUF accepts, and no key ever lost."""

from __future__ import annotations

import json
import stat
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from support.operators import Operator, Shop, snapshot
from tuf.api.metadata import Metadata, Root
from tuf.ngclient._internal.trusted_metadata_set import TrustedMetadataSet
from tuf.ngclient.config import EnvelopeType

from repo_server.core.keys import release_keys
from repo_server.core.policy import parse_channels_toml, parse_repo_toml
from repo_server.tree import roots


def test_python_tuf_accepts_the_root_and_the_release_keys_are_in_it(shop: Shop) -> None:
    """L22; both copies are the same bytes."""
    data = (shop.keys / "root.json").read_bytes()
    trusted = TrustedMetadataSet(data, EnvelopeType.METADATA)
    assert trusted.root.consistent_snapshot
    assert set(trusted.root.roles) == {"root", "targets", "snapshot", "timestamp"}
    online = trusted.root.roles["timestamp"].keyids
    assert trusted.root.roles["targets"].keyids == trusted.root.roles["snapshot"].keyids == online
    keys = release_keys(trusted.root.unrecognized_fields)
    assert keys.product == "commandit"
    assert len({*keys.keys, *online, *trusted.root.roles["root"].keyids}) == 3
    assert (shop.tree / "metadata" / "1.root.json").read_bytes() == data
    assert roots.read(shop.tree, datetime.now(UTC)).problems == ()


def test_the_operators_files_of_a_new_tree_are_valid(shop: Shop) -> None:
    """L30, L31."""
    assert parse_repo_toml((shop.tree / "repo.toml").read_bytes()).product == "commandit"
    assert parse_channels_toml((shop.tree / "policy" / "channels.toml").read_bytes()).default is None


def test_the_keys_are_for_their_owner_only_and_openssl_reads_them(shop: Shop) -> None:
    """NFR-SEC-004: PKCS#8, 0600 in a folder 0700, whatever the umask."""
    assert stat.S_IMODE(shop.keys.stat().st_mode) == 0o700
    for name in ("root.pem", "release.pem", "online.pem"):
        path = shop.keys / name
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert path.read_text().startswith("-----BEGIN PRIVATE KEY-----")
        subprocess.run(["openssl", "pkey", "-in", path, "-noout"], check=True)


@pytest.mark.parametrize(("kind", "scheme"), [("rsa", "rsassa-pss-sha256"), ("ed25519", "ed25519")])
def test_other_kinds_of_keys_can_be_made(operator: Operator, kind: str, scheme: str) -> None:
    """NFR-SEC-002."""
    operator.run("init", operator.home / "t", "--keys", operator.home / "k", "--no-passphrase", "--key-type", kind)
    root = Metadata[Root].from_file(str(operator.home / "k" / "root.json")).signed
    assert {key.scheme for key in release_keys(root.unrecognized_fields).keys.values()} == {scheme}


def test_a_passphrase_protects_root_and_release_key_but_not_the_servers(operator: Operator) -> None:
    output = operator.run("init", "t", "--keys", "k", REPOTOOL_PASSPHRASE="correct horse")
    assert "unattended" in output
    for name in ("root.pem", "release.pem"):
        pem = (operator.home / "k" / name).read_bytes()
        assert b"ENCRYPTED" in pem
        load_pem_private_key(pem, b"correct horse")
    load_pem_private_key((operator.home / "k" / "online.pem").read_bytes(), None)


def test_without_a_terminal_a_passphrase_must_be_said_or_renounced(operator: Operator) -> None:
    assert "REPOTOOL_PASSPHRASE" in operator.refused(2, "init", "t", "--keys", "k")
    assert "empty" in operator.refused(2, "init", "t", "--keys", "k", REPOTOOL_PASSPHRASE="")
    assert not (operator.home / "k").exists()


def test_a_tree_with_a_root_is_refused(shop: Shop) -> None:
    before = snapshot(shop.tree)
    assert "has a TUF root already" in shop.refused(3, "init", shop.tree, "--keys", "other", "--no-passphrase")
    assert snapshot(shop.tree) == before
    assert not (shop.home / "other").exists()


def test_a_key_is_never_overwritten(shop: Shop) -> None:
    before = snapshot(shop.keys)
    message = shop.refused(3, "init", "second", "--keys", shop.keys, "--no-passphrase")
    assert "never overwritten" in message
    assert "root.json" in message
    assert snapshot(shop.keys) == before


def test_dry_run_writes_nothing(operator: Operator) -> None:
    facts = operator.facts("init", "t", "--keys", "k", "--no-passphrase", "--dry-run")
    assert len(facts["files"]) == 7
    assert list(operator.home.iterdir()) == []


def test_more_release_keys_and_a_threshold_stand_in_the_root(operator: Operator, tmp_path: Path) -> None:
    """L21: two persons must sign."""
    private, public = tmp_path / "hsm.pem", tmp_path / "hsm.pub"
    command = ["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", private]
    subprocess.run(command, check=True, capture_output=True)
    subprocess.run(["openssl", "pkey", "-in", private, "-pubout", "-out", public], check=True)
    arguments = ("init", "t", "--keys", "k", "--no-passphrase", "--release-public", public, "--threshold", "2")
    operator.run(*arguments)
    root = Metadata[Root].from_file(str(operator.home / "k" / "root.json")).signed
    keys = release_keys(root.unrecognized_fields)
    assert (len(keys.keys), keys.threshold) == (2, 2)


def test_a_weak_key_is_not_accepted_as_a_release_key(operator: Operator, tmp_path: Path) -> None:
    """L22: RSA of at least 2048 bits, and no other curves."""
    for name, options in {"rsa": ["RSA", "rsa_keygen_bits:1024"], "ec": ["EC", "ec_paramgen_curve:P-384"]}.items():
        private, public = tmp_path / f"{name}.pem", tmp_path / f"{name}.pub"
        command = ["openssl", "genpkey", "-algorithm", options[0], "-pkeyopt", options[1], "-out", private]
        subprocess.run(command, check=True, capture_output=True)
        subprocess.run(["openssl", "pkey", "-in", private, "-pubout", "-out", public], check=True)
        message = operator.refused(3, "init", "t", "--keys", "k", "--no-passphrase", "--release-public", public)
        assert "L22" in message


def test_json_says_where_everything_is(operator: Operator) -> None:
    facts = operator.facts("init", "t", "--keys", "k", "--no-passphrase", "--product", "acme")
    assert set(facts["key_ids"]) == {"root", "release", "online"}
    assert facts["product"] == "acme"
    root = json.loads(Path(operator.home / facts["root_json"]).read_bytes())
    assert root["signed"]["x-product"] == "acme"
    assert facts["key_ids"]["release"] in root["signed"]["x-release-keys"]["keys"]


def test_a_folder_that_others_can_write_into_gets_no_keys(operator: Operator) -> None:
    """NFR-SEC-004."""
    (operator.home / "k").mkdir()
    (operator.home / "k").chmod(0o777)
    assert "chmod 700" in operator.refused(3, "init", "t", "--keys", "k", "--no-passphrase")
    assert list((operator.home / "k").iterdir()) == []
