"""What must be there before a server starts: its tree, and its address.

::

    StartError                 the message says what to do
    ├── AddressUnusable        the port is taken, or the address is not this machine's (exit code 1)
    ├── TreeUnusable           the tree is missing or cannot be read (exit code 1)
    └── TlsUnusable            certificate or key cannot be used (exit code 2)
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from repo_server.servicemanager import ServiceManager
from repo_server.settings import Settings, check_exposure

_BACKLOG = 2048


class StartError(Exception):
    """The server cannot start as it is set up."""


class AddressUnusable(StartError):
    """The address cannot be listened on."""


class TreeUnusable(StartError):
    """The tree is missing or cannot be read."""


class TlsUnusable(StartError):
    """Certificate or key cannot be used."""


def require_tree(tree: Path) -> None:
    """Raise ``TreeUnusable`` if the tree cannot be read."""
    try:
        with os.scandir(tree) as entries:
            next(entries, None)
    except FileNotFoundError:
        raise TreeUnusable(f"--tree {tree} does not exist; make one with: repotool init {tree} --keys DIR") from None
    except NotADirectoryError:
        raise TreeUnusable(f"--tree {tree} is not a folder") from None
    except OSError as error:
        raise TreeUnusable(f"--tree {tree} cannot be read: {error.strerror}") from error


def require_address(host: str, port: int) -> None:
    """Raise ``AddressUnusable`` if it cannot be listened on; one that is taken already is fine."""
    family, address = _address(host, port)
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise _unusable(host, port, error) from error


@contextlib.contextmanager
def listening(settings: Settings, manager: ServiceManager) -> Iterator[socket.socket]:
    """Take the address, first of all: a second server on it must fail before it touches anything.

    A socket that the service manager hands over is taken instead: it stays open while the server restarts, and who
    connects meanwhile waits in it. Raise ``AddressUnusable``, or ``Unsafe`` as ``check_exposure`` does.
    """
    given = manager.sockets()
    if not given:
        with _bound(settings) as listener:
            yield listener
        return
    if len(given) > 1 or given[0].family not in {socket.AF_INET, socket.AF_INET6}:
        raise AddressUnusable("expected one TCP socket of the service manager; see ListenStream= in its .socket unit")
    with given[0] as listener:
        check_exposure(msgspec.structs.replace(settings, host=listener.getsockname()[0]))
        listener.setblocking(False)
        yield listener


@contextlib.contextmanager
def _bound(settings: Settings) -> Iterator[socket.socket]:
    host, port = settings.host, settings.port
    family, address = _address(host, port)
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(_BACKLOG)
        except OSError as error:
            raise _unusable(host, port, error) from error
        listener.setblocking(False)
        yield listener


def _address(host: str, port: int) -> tuple[int, tuple[Any, ...]]:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "that is no host's name"
        raise AddressUnusable(f"cannot listen on {host}: {reason}; check --host") from error
    return family, address


def _unusable(host: str, port: int, error: OSError) -> AddressUnusable:
    advice = "check --host" if error.errno == errno.EADDRNOTAVAIL else "choose another --port"
    return AddressUnusable(f"cannot listen on {host} port {port}: {os.strerror(error.errno or 0)}; {advice}")


def url_of(settings: Settings, listener: socket.socket) -> str:
    """Return what people can open."""
    host, port = listener.getsockname()[:2]
    return f"{settings.scheme}://{f'[{host}]' if ':' in host else host}:{port}"
