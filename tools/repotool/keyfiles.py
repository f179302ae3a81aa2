"""Key files: PKCS#8 in PEM, one key per file (NFR-SEC-004)."""

from __future__ import annotations

import contextlib
import enum
import errno
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from securesystemslib.signer._crypto_signer import CryptoSigner
from securesystemslib.signer._key import SSlibKey

from repo_server.core.keys import ACCEPTED, MIN_RSA_BITS
from repo_server.tree import treeio
from repotool.errors import Refused, ToolError

PassphraseSource: TypeAlias = Callable[[Path], bytes]
"""Returns the passphrase of a key file, from wherever the operator gives it."""

MAX_KEY_BYTES = 64 * 1024
_ENCRYPTED = b"ENCRYPTED"


class KeyType(enum.StrEnum):
    """Kinds of keys that ``init`` makes (NFR-SEC-002)."""

    ECDSA = "ecdsa"
    RSA = "rsa"
    ED25519 = "ed25519"


def generate(kind: KeyType) -> CryptoSigner:
    """Make a new key: ECDSA P-256, RSA 3072 (PSS) or Ed25519."""
    makers: dict[KeyType, Callable[[], CryptoSigner]] = {
        KeyType.ECDSA: CryptoSigner.generate_ecdsa,
        KeyType.RSA: CryptoSigner.generate_rsa,
        KeyType.ED25519: CryptoSigner.generate_ed25519,
    }
    return makers[kind]()


def load_signer(path: Path, passphrase: PassphraseSource) -> CryptoSigner:
    """Load a private key; ask for its passphrase only if it has one. Raises ``ToolError`` or ``Refused``."""
    pem = _read(path)
    try:
        private = load_pem_private_key(pem, passphrase(path) if _ENCRYPTED in pem else None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        if _ENCRYPTED in pem:
            raise ToolError(
                f"wrong passphrase for {path}; set REPOTOOL_PASSPHRASE to the right one or type it when asked"
            ) from None
        raise ToolError(
            f"{path} is not a private key in PEM (PKCS#8); give the .pem that `repotool init` made"
        ) from None
    bits = private.key_size if isinstance(private, RSAPrivateKey) else None
    try:
        public = SSlibKey.from_crypto(private.public_key())
        return CryptoSigner(private, _accepted(public, bits, path))
    except ValueError:
        raise _unaccepted(path) from None


def load_public(path: Path) -> SSlibKey:
    """Load a public key in PEM, for signatures made elsewhere (an HSM). Raises ``ToolError`` or ``Refused``."""
    try:
        public = load_pem_public_key(_read(path))
    except (ValueError, UnsupportedAlgorithm):
        raise ToolError(
            f"{path} is not a public key in PEM; `openssl pkey -pubout` or the HSM's tool writes one"
        ) from None
    bits = public.key_size if isinstance(public, RSAPublicKey) else None
    try:
        return _accepted(SSlibKey.from_crypto(public), bits, path)
    except ValueError:
        raise _unaccepted(path) from None


def open_to_others(path: Path) -> bool:
    """Whether a key file can be read by others than its owner (NFR-SEC-004)."""
    return bool(path.stat().st_mode & 0o077)


def write_new(path: Path, signer: CryptoSigner, passphrase: bytes | None) -> None:
    """Write a private key for its owner only, whole and durably; an existing file is never replaced."""
    encryption = NoEncryption() if passphrase is None else BestAvailableEncryption(passphrase)
    key = load_pem_private_key(signer.private_bytes, None)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
    temporary = treeio.temporary_beside(path)
    try:
        treeio.write_atomic(temporary, pem, mode=0o600)
        try:
            path.hardlink_to(temporary)
        except FileExistsError:
            raise Refused(f"{path} exists; a key is never overwritten") from None
        except OSError as error:
            # USB sticks have file systems without hard links.
            if error.errno not in {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP} or path.exists():
                raise
            temporary.rename(path)
        treeio.sync_folder(path.parent)
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()


def private_folder(folder: Path) -> None:
    """Make a folder that only its owner can enter, or check that an existing one is so; raise ``Refused``."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        mode = folder.stat().st_mode & 0o777
        if mode & 0o022:
            raise Refused(
                f"others can write into {folder} (mode {mode:04o}); run `chmod 700 {folder}` or choose another folder"
            ) from None
        return
    folder.chmod(0o700)  # whatever the umask was


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_KEY_BYTES + 1)
    except FileNotFoundError:
        raise ToolError(f"there is no key file {path}; give the path of a .pem") from None
    except IsADirectoryError:
        raise ToolError(f"{path} is a folder; give the path of a .pem in it") from None
    if len(data) > MAX_KEY_BYTES:
        raise ToolError(f"{path} is too large for a key; give the path of a .pem")
    return data


def _accepted(key: SSlibKey, bits: int | None, path: Path) -> SSlibKey:
    if (key.keytype, key.scheme) not in ACCEPTED or (bits is not None and bits < MIN_RSA_BITS):
        raise _unaccepted(path)
    return key


def _unaccepted(path: Path) -> Refused:
    return Refused(
        f"{path} is not a kind of key that releases are signed with; expected ECDSA P-256, Ed25519 or RSA of "
        f"{MIN_RSA_BITS} bits or more (L22)"
    )
