"""Large trees of real, signed releases for the benchmarks."""

from __future__ import annotations

import base64
import hashlib
import os
import subprocess
import sys
from pathlib import Path

from cryptography.hazmat.primitives.serialization import load_pem_private_key
from securesystemslib.signer import CryptoSigner

from repo_server.core.model import Arch, Os, Platform, ReleaseId, ReleaseSignature
from repo_server.core.sidecars import format_sha256, format_sig
from repo_server.core.statement import Statement
from repo_server.core.version import Version

BIN = Path(sys.executable).parent
COMPONENTS = ("service", "ui", "probe", "updater")
PLATFORMS = tuple(Platform(os_, arch) for os_ in Os for arch in Arch)


def make_tree(home: Path, releases: int, size: int) -> Path:
    """Make keys and a tree of so many releases of ``size`` bytes each; every fourth is beta, the rest stable."""
    tree = home / "downloads"
    command = [BIN / "repotool", "init", tree, "--keys", home / "keys", "--no-passphrase"]
    subprocess.run(command, check=True, capture_output=True)
    signer = release_signer(home)
    per_version = len(COMPONENTS) * len(PLATFORMS)
    for number in range(releases):
        version, place = divmod(number, per_version)
        platform, component = PLATFORMS[place // len(COMPONENTS)], COMPONENTS[place % len(COMPONENTS)]
        release = ReleaseId(component, Version(f"1.{version}.0"), platform)
        content = os.urandom(size) if size > 64 else f"{release}".encode()
        add_release(tree / f"{version // 10}", release, content, signer, beta=version % 4 == 3)
    return tree


def release_signer(home: Path) -> CryptoSigner:
    """Load the release key that ``repotool init`` made."""
    return CryptoSigner(load_pem_private_key((home / "keys" / "release.pem").read_bytes(), None))


def add_release(folder: Path, release: ReleaseId, content: bytes, signer: CryptoSigner, *, beta: bool) -> Path:
    """Write a release file and its sidecars."""
    folder.mkdir(exist_ok=True)
    name = f"{release}.tar.gz"
    digest = hashlib.sha256(content).hexdigest()
    raw = bytes.fromhex(signer.sign(Statement("commandit", release, digest, len(content)).to_bytes()).signature)
    signature = ReleaseSignature(signer.public_key.keyid, base64.b64encode(raw).decode())
    (folder / name).write_bytes(content)
    (folder / f"{name}.channel").write_text("beta\n" if beta else "stable\n")
    (folder / f"{name}.sig").write_bytes(format_sig((signature,)))
    (folder / f"{name}.sha256").write_bytes(format_sha256(digest, name))
    return folder / name
