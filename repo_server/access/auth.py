"""Who asks: agents' shared secrets, and what a file of credentials that changes while the server runs is (design §5).

::

    CredentialsInvalid        a secrets or tokens file is malformed; the message never contains a secret
"""

from __future__ import annotations

import enum
import hmac
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType

from repo_server.statefolder import StateError, require_private

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
"""Id of a secret, name of a token."""
_WEAK_SECRET = 16
"""Characters; a shorter secret can be guessed, and is warned of."""
_MAX_FILE = 1024 * 1024

_log = logging.getLogger(__name__)


class CredentialsInvalid(Exception):
    """A secrets or tokens file is malformed; the message never contains a secret."""


class Role(enum.StrEnum):
    """What an operator's token is good for."""

    READ = "read"
    OPERATE = "operate"
    """Also what changes something."""

    def covers(self, needed: Role) -> bool:
        """Whether this role may do what ``needed`` may."""
        return self is Role.OPERATE or needed is Role.READ


@dataclass(frozen=True, slots=True)
class Keys:
    """Credentials in force. The secrets themselves are not kept."""

    digests: Mapping[str, bytes] = field(default_factory=lambda: MappingProxyType({}))
    """Id of a secret or name of a token → SHA-256 of it."""
    roles: Mapping[str, Role] = field(default_factory=lambda: MappingProxyType({}))
    """Name of a token → its role."""
    doubts: tuple[str, ...] = ()
    """What is taken and should not stay so, for people; never with a secret."""

    def match(self, presented: str) -> str | None:
        """Return whose secret was presented, comparing with every one in constant time."""
        wanted = sha256(presented.encode("utf-8", "surrogateescape")).digest()
        found = None
        for name, known in self.digests.items():
            if hmac.compare_digest(known, wanted):
                found = name
        return found


def digest(secret: str) -> bytes:
    """Return what is kept of a secret."""
    return sha256(secret.encode("utf-8", "surrogateescape")).digest()


def _contents(path: Path) -> bytes:
    """Read a file whole or not at all: the beginning of a secret must not become one."""
    with path.open("rb") as file:
        data = file.read(_MAX_FILE + 1)
    if len(data) > _MAX_FILE:
        raise CredentialsInvalid(f"{path} has more than {_MAX_FILE} bytes; remove what is not in use")
    return data


def parse_secrets(data: bytes, where: str) -> Keys:
    """Read ``id:secret`` lines; ``#`` starts a comment line. Raise ``CredentialsInvalid``."""
    try:
        lines = data.decode().splitlines()
    except UnicodeDecodeError as error:
        raise CredentialsInvalid(f"{where} is not UTF-8 at byte {error.start}") from None
    keys: dict[str, bytes] = {}
    doubts = []
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, colon, secret = line.strip().partition(":")
        if not colon or not NAME.fullmatch(name):
            raise CredentialsInvalid(f"{where} line {number}: expected id:secret, id of letters, digits and . _ @ -")
        if not secret.strip() or not secret.isascii() or not secret.isprintable() or secret != secret.strip():
            raise CredentialsInvalid(
                f"{where} line {number}: the secret of {name!r} must be printable ASCII; make one with: "
                "openssl rand -hex 32"
            )
        if len(secret) < _WEAK_SECRET:
            doubts.append(
                f"{where} line {number}: the secret of {name!r} is short enough to guess; make one with: "
                "openssl rand -hex 32"
            )
        if name in keys:
            raise CredentialsInvalid(f"{where} line {number}: {name!r} is there twice; give each secret its own id")
        keys[name] = digest(secret)
    if not keys:
        raise CredentialsInvalid(f"{where} holds no secret; expected at least one line id:secret")
    return Keys(MappingProxyType(keys), doubts=tuple(doubts))


@dataclass(slots=True)
class KeyFile:
    """The keys of a file that may change while the server runs. A bad change leaves the last good keys in force."""

    path: Path
    parse: Callable[[bytes, str], Keys]
    optional: bool = False
    """Whether the file may be missing (then: no keys)."""
    keys: Keys = field(default_factory=Keys)
    error: str | None = None
    """Why the file's present content is not in force."""
    _seen: tuple[int, ...] | None = None
    """What the file was when it was read; ``None``: it was not there, ``()``: it has not been read."""

    def load(self) -> None:
        """Read the file; raise ``CredentialsInvalid``, ``StateExposed`` or ``OSError``."""
        self._seen = self._state()
        if self._seen is None and self.optional:
            self.keys = Keys()
            return
        require_private(self.path)
        self.keys = self.parse(_contents(self.path), str(self.path))
        for doubt in self.keys.doubts:
            _log.warning(doubt)

    def take_over(self, keys: Keys) -> None:
        """Begin with the keys that another process has in force, then with the file's if they are good."""
        self.keys = keys
        self.read_again()
        self.refresh()

    def read_again(self) -> None:
        """Have the next ``refresh`` read the file, whether it looks changed or not."""
        self._seen = ()

    def refresh(self) -> None:
        """Read the file again if it changed; what is wrong with it goes to the log and to ``error``."""
        if self._state() == self._seen:
            return
        try:
            self.load()
        except (CredentialsInvalid, StateError, OSError) as error:
            self.error = f"{self.path} not reloaded, the last good content stays in force: {error}"
            _log.error(self.error)
        else:
            self.error = None
            _log.info("%s reloaded: %s", self.path, ", ".join(self.keys.digests) or "none")

    def _state(self) -> tuple[int, ...] | None:
        try:
            status = self.path.stat()
        except OSError:
            return None
        return status.st_ino, status.st_size, status.st_mtime_ns, status.st_mode
