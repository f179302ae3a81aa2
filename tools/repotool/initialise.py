"""``init``: keys, a TUF root and a tree that is ready to use (L22, L30, NFR-SEC-004).

The order makes an interrupted run repeatable: a marker in the key folder comes first and goes last, the tree's root
is the last file that is written. Only under the marker are keys that exist already used again.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from securesystemslib.signer._crypto_signer import CryptoSigner
from securesystemslib.signer._key import Key
from tuf.api._payload import Root
from tuf.api.metadata import Metadata
from tuf.api.serialization.json import JSONSerializer

from repo_server.core.keys import release_keys_fields
from repo_server.core.policy import parse_repo_toml
from repo_server.tree import treeio
from repotool.errors import Refused, ToolError
from repotool.keyfiles import KeyType, PassphraseSource, generate, load_signer, private_folder, write_new
from repotool.tree import CONFIG_NAME, FIRST_ROOT, has_root, keys_in

MARKER = ".init-unfinished"
ROOT_JSON = "root.json"
CHANNELS = "policy/channels.toml"
_ONLINE_ROLES = ("targets", "snapshot", "timestamp")


class KeyName(enum.StrEnum):
    """The key files, by what they sign."""

    ROOT = "root.pem"
    RELEASE = "release.pem"
    ONLINE = "online.pem"


@dataclass(frozen=True, slots=True)
class InitOptions:
    """What a new tree is to be. ``passphrase`` protects root and release key; ``None``: none."""

    product: str
    key_type: KeyType
    now: datetime
    expires: datetime
    passphrase: bytes | None
    more_release_keys: tuple[Key, ...] = ()
    """Release keys whose private half is elsewhere."""
    threshold: int = 1


class InitState(enum.StrEnum):
    """How far an earlier run came."""

    FRESH = "fresh"
    UNFINISHED = "unfinished"
    FINISHED = "finished"
    """All is written but the marker still lies there."""


@dataclass(frozen=True, slots=True)
class Initialised:
    """What was made: the key ids by key file, and the files."""

    key_ids: dict[KeyName, str]
    files: tuple[Path, ...]


def examine(tree: Path, keys: Path) -> InitState:
    """Say whether a tree can be made here; raise ``Refused`` when that would replace a root or a key."""
    marker, present = (keys / MARKER).exists(), [name for name in KeyName if (keys / name).exists()]
    if has_root(tree):
        ours, theirs = keys / ROOT_JSON, tree / FIRST_ROOT
        if marker and ours.exists() and theirs.exists() and ours.read_bytes() == theirs.read_bytes():
            return InitState.FINISHED
        raise Refused(f"{tree} has a TUF root already; use the tree as it is, or choose another folder")
    if marker:
        return InitState.UNFINISHED
    if present:
        raise Refused(
            f"{keys} holds {', '.join(present)} already, and a key is never overwritten; choose another folder for new "
            f"keys, or to use these for {tree} copy {keys / ROOT_JSON} to {tree / FIRST_ROOT}"
        )
    return InitState.FRESH


def planned_files(tree: Path, keys: Path) -> list[Path]:
    """Return the files that would be written."""
    names = [keys / name for name in (*KeyName, ROOT_JSON)] + [
        tree / name for name in (CONFIG_NAME, CHANNELS, FIRST_ROOT)
    ]
    return [path for path in names if not path.exists()]


def initialise(tree: Path, keys: Path, options: InitOptions, passphrase: PassphraseSource) -> Initialised:
    """Make keys, root and tree, or finish what an interrupted run began. Raises ``Refused``, ``ToolError``."""
    tree.mkdir(parents=True, exist_ok=True)
    with treeio.tree_lock(tree):
        state = examine(tree, keys)
        _check_config(tree, options)
        files = planned_files(tree, keys)
        if state is not InitState.FINISHED:
            private_folder(keys)
            treeio.write_atomic(keys / MARKER, b"`repotool init` was interrupted; run it again to finish\n", mode=0o600)
        signers = {name: _key(keys / name, name, options, passphrase) for name in KeyName}
        if state is not InitState.FINISHED:
            _write_tree(tree, _root_json(keys, signers, options), options)
        treeio.remove(keys / MARKER)
    return Initialised({name: signer.public_key.keyid for name, signer in signers.items()}, tuple(files))


def make_root(root: CryptoSigner, online: Key, release: Sequence[Key], options: InitOptions) -> bytes:
    """Return a signed ``1.root.json`` that names the release keys; raise ``KeysInvalid`` (L22)."""
    content = Root(
        version=1,
        expires=options.expires.replace(microsecond=0),
        consistent_snapshot=True,
        unrecognized_fields=release_keys_fields(options.product, release, options.threshold),
    )
    content.add_key(root.public_key, "root")
    for role in _ONLINE_ROLES:
        content.add_key(online, role)
    metadata = Metadata(content)
    metadata.sign(root)
    return metadata.to_bytes(JSONSerializer(compact=False))


def _key(path: Path, name: KeyName, options: InitOptions, passphrase: PassphraseSource) -> CryptoSigner:
    if path.exists():
        return load_signer(path, passphrase)
    signer = generate(options.key_type)
    # The server signs with the online key while nobody is there to type.
    write_new(path, signer, None if name is KeyName.ONLINE else options.passphrase)
    return signer


def _root_json(keys: Path, signers: dict[KeyName, CryptoSigner], options: InitOptions) -> bytes:
    path = keys / ROOT_JSON
    if path.exists():
        # An earlier run wrote it, and an agent may have been provisioned with it.
        data = path.read_bytes()
        found = keys_in(path, data, options.now)
        if found.product != options.product or signers[KeyName.RELEASE].public_key.keyid not in found.keys:
            raise Refused(
                f"{path} is for product {found.product} or does not name {KeyName.RELEASE}; run init as it was run "
                "before, or choose another folder for keys"
            )
        return data
    release = (signers[KeyName.RELEASE].public_key, *options.more_release_keys)
    data = make_root(signers[KeyName.ROOT], signers[KeyName.ONLINE].public_key, release, options)
    treeio.write_atomic(path, data)
    return data


def _check_config(tree: Path, options: InitOptions) -> None:
    path = tree / CONFIG_NAME
    if path.exists():
        product = parse_repo_toml(path.read_bytes()).product
        if product not in {None, options.product}:
            raise ToolError(f"{path} says product {product!r}; give --product {product}, or correct the file")


def _write_tree(tree: Path, root_json: bytes, options: InitOptions) -> None:
    for name in (FIRST_ROOT, CHANNELS):
        (tree / name).parent.mkdir(exist_ok=True)
    for name, text in ((CONFIG_NAME, _CONFIG.format(product=options.product)), (CHANNELS, _CHANNELS)):
        if not (tree / name).exists():
            treeio.write_atomic(tree / name, text.encode())
    treeio.write_atomic(tree / FIRST_ROOT, root_json)
    treeio.sync_folder(tree)


_CONFIG = """\
# The tree's settings (repo_layout.md, L30). A line that begins with # is the default.
product = "{product}"
# components = ["service", "ui", "probe", "updater"]   # names added here are known beside these
# default_channel = "stable"
# rescan_seconds = 60
# stale_days = 14

# [floors]                 # nothing below is ever offered or installed
# service = "1.0.0"

# [limits]
# max_file_bytes = 8589934592
# max_sidecar_bytes = 65536
# max_depth = 3
# max_files = 500000
"""

_CHANNELS = """\
# Who is on which channel (repo_layout.md, L31): a device's own entry, else its site's, else its organisation's, else
# what its agent is configured for, else `default`.
# default = "stable"

# [organisations]
# "6f1c2a34-0000-4000-8000-000000000001" = "beta"

# [sites]
# "berlin-lab" = "alpha"

# [devices]
# "0b1c2d3e-4f50-4a6b-8c7d-9e0f1a2b3c4d" = "stable"
"""
