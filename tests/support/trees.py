"""Makes real trees: real keys, a real TUF root, real signatures. Shared by all test folders."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, Root
from tuf.api.serialization.json import JSONSerializer

from repo_server.core.keys import release_keys_fields
from repo_server.core.model import Channel, ReleaseSignature
from repo_server.core.names import parse_release_name
from repo_server.core.sidecars import format_channel, format_sha256, format_sig
from repo_server.core.statement import Statement

PRODUCT = "commandit"


def root_metadata(root: CryptoSigner, online: CryptoSigner, release: list[CryptoSigner], threshold: int = 1) -> bytes:
    """Return a signed ``1.root.json`` with release keys."""
    content = Root(
        version=1,
        expires=datetime.now(UTC).replace(microsecond=0) + timedelta(days=365),
        unrecognized_fields=release_keys_fields(PRODUCT, [signer.public_key for signer in release], threshold),
    )
    content.add_key(root.public_key, "root")
    for role in ("targets", "snapshot", "timestamp"):
        content.add_key(online.public_key, role)
    metadata = Metadata(content)
    metadata.sign(root)
    return metadata.to_bytes(JSONSerializer(compact=False))


@dataclass
class Tree:
    """A tree on disk and the keys that belong to it."""

    root: Path
    release_key: CryptoSigner = field(default_factory=CryptoSigner.generate_ecdsa)
    root_key: CryptoSigner = field(default_factory=CryptoSigner.generate_ecdsa)
    online_key: CryptoSigner = field(default_factory=CryptoSigner.generate_ecdsa)

    def __post_init__(self) -> None:
        (self.root / "metadata").mkdir(parents=True, exist_ok=True)
        self.root_json = root_metadata(self.root_key, self.online_key, [self.release_key])
        (self.root / "metadata" / "1.root.json").write_bytes(self.root_json)
        (self.root / "repo.toml").write_text(f'product = "{PRODUCT}"\n')

    def sig(self, name: str, content: bytes, signer: CryptoSigner | None = None) -> bytes:
        """Return the ``.sig`` of content under a name."""
        return signature(name, content, signer or self.release_key)

    def add(
        self,
        name: str,
        content: bytes = b"content",
        *,
        folder: str = "",
        channel: Channel | str | None = None,
        **sidecars: str | bytes,
    ) -> Path:
        """Put a release with its sidecars into the tree; ``meta=``, ``rollout=``, ``blocked=`` are contents."""
        path = self.root / folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        if channel is not None:
            (path.parent / f"{name}.channel").write_bytes(format_channel(Channel(channel)))
        for kind, text in sidecars.items():
            (path.parent / f"{name}.{kind}").write_bytes(text.encode() if isinstance(text, str) else text)
        (path.parent / f"{name}.sig").write_bytes(self.sig(name, content))
        (path.parent / f"{name}.sha256").write_bytes(format_sha256(hashlib.sha256(content).hexdigest(), name))
        return path


def signature(name: str, content: bytes, signer: CryptoSigner) -> bytes:
    """Sign content under a release file's name."""
    statement = Statement(PRODUCT, parse_release_name(name).id, hashlib.sha256(content).hexdigest(), len(content))
    raw = bytes.fromhex(signer.sign(statement.to_bytes()).signature)
    return format_sig((ReleaseSignature(signer.public_key.keyid, base64.b64encode(raw).decode()),))
