"""The operator's files and the root of trust: the last good one stays in force (L22, L30, L31)."""

from __future__ import annotations

from pathlib import Path

import pytest
from securesystemslib.signer import CryptoSigner
from support.scanning import Scans, codes, full, offered
from support.trees import Tree, root_metadata

from repo_server.core.model import Channel
from repo_server.core.version import Version
from repo_server.tree.scan import ScanOptions

NAME = "service-linux-amd64-1.2.3.tar.gz"


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    tree = Tree(tmp_path / "tree")
    tree.add(NAME)
    return tree


def test_the_catalogue_carries_the_operators_decisions(tree: Tree) -> None:
    (tree.root / "repo.toml").write_text('default_channel = "beta"\n[floors]\nservice = "1.0.0"\n')
    (tree.root / "policy").mkdir()
    (tree.root / "policy" / "channels.toml").write_text('[sites]\nberlin = "alpha"\n')
    catalogue = full(tree.root).catalogue
    assert catalogue.config.default_channel is Channel.BETA
    assert catalogue.config.floors == {"service": Version("1.0.0")}
    assert catalogue.policy.sites == {"berlin": Channel.ALPHA}


def test_a_changed_decision_counts_at_once(tree: Tree) -> None:
    scans = Scans(tree.root)
    scans.full()
    (tree.root / "policy").mkdir()
    (tree.root / "policy" / "channels.toml").write_text('default = "beta"\n')
    assert scans.update("policy/channels.toml").catalogue.policy.default is Channel.BETA
    (tree.root / "repo.toml").write_text("rescan_seconds = 7\n")
    result = scans.update("repo.toml")
    assert result.catalogue.config.rescan_seconds == 7
    assert NAME in offered(result)


BAD = {
    "typing mistake": b"rescan_second = 7\n",
    "not TOML": b"= = =",
    "not UTF-8": b'product = "\xff"\n',
    "another product": b'product = "another"\n',
}


@pytest.mark.parametrize("content", BAD.values(), ids=BAD)
def test_a_malformed_repo_toml_is_a_problem_and_the_last_good_one_stays(tree: Tree, content: bytes) -> None:
    """L30."""
    path = tree.root / "repo.toml"
    path.write_text('[floors]\nservice = "1.0.0"\n')
    scans = Scans(tree.root)
    scans.full()
    path.write_bytes(content)
    result = scans.update("repo.toml")
    assert codes(result) == {"repo.toml": "invalid_policy"}
    assert result.catalogue.config.floors == {"service": Version("1.0.0")}
    assert NAME in offered(result)


@pytest.mark.parametrize("name", ["repo.toml", "policy/channels.toml"])
def test_who_has_never_seen_a_good_file_offers_nothing(tree: Tree, name: str) -> None:
    """L30, L31: a floor might be in it."""
    (tree.root / name).parent.mkdir(exist_ok=True)
    (tree.root / name).write_text("rubbish")
    result = full(tree.root)
    assert offered(result) == {}
    assert codes(result) == {name: "invalid_policy"}


def test_the_last_good_file_is_remembered_over_a_restart(tree: Tree, tmp_path: Path) -> None:
    path = tree.root / "repo.toml"
    path.write_text('[floors]\nservice = "1.0.0"\n')
    full(tree.root, tmp_path / "state")
    path.write_text("rubbish")
    result = full(tree.root, tmp_path / "state")
    assert codes(result) == {"repo.toml": "invalid_policy"}
    assert result.catalogue.config.floors == {"service": Version("1.0.0")}
    assert NAME in offered(result)


def test_a_tree_that_loses_its_root_offers_nothing_until_it_is_back(tree: Tree, tmp_path: Path) -> None:
    """L22: its files are there, so nothing is kept for them: a recall that came meanwhile would not be seen."""
    scans = Scans(tree.root, tmp_path / "state")
    assert NAME in offered(scans.full())
    root = tree.root / "metadata" / "1.root.json"
    root.rename(tmp_path / "away")
    result = scans.update("metadata/1.root.json")
    assert (offered(result), codes(result)) == ({}, {"": "no_root"})
    root.write_text("{}")
    result = scans.full()
    assert (offered(result), codes(result)) == ({}, {"metadata/1.root.json": "invalid_root"})
    (tmp_path / "away").replace(root)
    result = scans.update("metadata/1.root.json")
    assert (NAME in offered(result), codes(result)) == (True, {})


def test_floors_stay_when_repo_toml_goes(tree: Tree, tmp_path: Path) -> None:
    """L30: an editor that saves by renaming, or a copy that is cut short, is no decision; an empty file is one."""
    path = tree.root / "repo.toml"
    path.write_text('[floors]\nservice = "9.0.0"\n')
    scans = Scans(tree.root, tmp_path / "state")
    scans.full()
    path.unlink()
    result = scans.update("repo.toml")
    assert codes(result) == {"repo.toml": "invalid_policy"}
    assert result.catalogue.config.floors == {"service": Version("9.0.0")}
    scans.scanner.close()
    assert full(tree.root, tmp_path / "state").catalogue.config.floors == {"service": Version("9.0.0")}
    path.write_text("rubbish")
    assert full(tree.root, tmp_path / "state").catalogue.config.floors == {"service": Version("9.0.0")}
    path.write_text("")
    result = full(tree.root, tmp_path / "state")
    assert (codes(result), result.catalogue.config.floors) == ({}, {})


def test_an_operators_file_is_not_read_through_a_link(tree: Tree, tmp_path: Path) -> None:
    """L29."""
    (tmp_path / "outside.toml").write_text("")
    (tree.root / "repo.toml").unlink()
    (tree.root / "repo.toml").symlink_to(tmp_path / "outside.toml")
    assert codes(full(tree.root)) == {"repo.toml": "invalid_policy"}


def test_a_component_becomes_known_when_repo_toml_names_it(tree: Tree) -> None:
    name = "sensor-linux-amd64-1.0.0.tar.gz"
    content = b"content"
    (tree.root / "repo.toml").write_text('components = ["sensor"]\n')
    (tree.root / name).write_bytes(content)
    scans = Scans(tree.root)
    assert codes(scans.full()) == {name: "no_sha256"}
    (tree.root / "repo.toml").write_text("")
    assert codes(scans.update("repo.toml")) == {name: "unknown_component"}


def test_a_tree_without_a_root_offers_nothing_until_it_has_one(tree: Tree) -> None:
    """L22."""
    root = tree.root / "metadata" / "1.root.json"
    data = root.read_bytes()
    root.unlink()
    scans = Scans(tree.root)
    result = scans.full()
    assert offered(result) == {}
    assert codes(result) == {"": "no_root"}
    root.write_bytes(data)
    assert NAME in offered(scans.update("metadata/1.root.json"))


def test_a_new_root_with_other_release_keys_decides_anew(tree: Tree) -> None:
    """NFR-SEC-006: a release key that is withdrawn no longer makes releases."""
    scans = Scans(tree.root)
    scans.full()
    tree.add("ui-linux-amd64-1.0.0.tar.gz")
    tree.add("ui-linux-amd64-1.0.1.tar.gz")
    assert len(offered(scans.full())) == 3
    new_key = CryptoSigner.generate_ecdsa()
    second = root_metadata(tree.root_key, tree.online_key, [new_key])
    (tree.root / "metadata" / "2.root.json").write_bytes(_as_version_two(second, tree))
    result = scans.update("metadata/2.root.json")
    assert offered(result) == {}
    assert set(codes(result).values()) == {"unknown_key"}
    (tree.root / f"{NAME}.sig").write_bytes(tree.sig(NAME, b"content", new_key))
    assert list(offered(scans.update(f"{NAME}.sig"))) == [NAME]


def _as_version_two(data: bytes, tree: Tree) -> bytes:
    from tuf.api._payload import Root
    from tuf.api.metadata import Metadata

    metadata = Metadata[Root].from_bytes(data)
    metadata.signed.version = 2
    metadata.sign(tree.root_key)
    return metadata.to_bytes()


def test_a_pinned_root_counts_instead_of_the_trees(tree: Tree) -> None:
    """L22: a tree whose root an attacker replaced offers nothing that the attacker signed."""
    evil_key = CryptoSigner.generate_ecdsa()
    evil = root_metadata(CryptoSigner.generate_ecdsa(), tree.online_key, [evil_key])
    (tree.root / "metadata" / "1.root.json").write_bytes(evil)
    name = "ui-linux-amd64-1.0.0.tar.gz"
    tree.add(name)
    (tree.root / f"{name}.sig").write_bytes(tree.sig(name, b"content", evil_key))
    result = Scans(tree.root, options=ScanOptions(pinned_root=tree.root_json)).full()
    assert list(offered(result)) == [NAME]
    assert codes(result) == {name: "unknown_key"}
