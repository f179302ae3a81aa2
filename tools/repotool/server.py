"""Asks a repository server as an operator: GET with a token, answers as facts, failures as sentences."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import urllib3

from repo_server.statefolder import StateExposed, require_private
from repotool.errors import Refused, ToolError, Usage

SECONDS = 60.0
PAGE = 1000
_MAX_BYTES = 256 * 1024 * 1024
_OK = 200
_NOT_UNDERSTOOD = 422


@dataclass(frozen=True, slots=True)
class Server:
    """A repository server and the token for it."""

    url: str
    token: str | None = None
    ca_file: Path | None = None

    def get(self, path: str, **parameters: object) -> dict[str, Any]:
        """Return the answer to a GET; parameters that are ``None`` are left out. Raise ``ToolError``."""
        given = {name: _text(value) for name, value in parameters.items() if value is not None}
        url = f"{self.url}{path}{'?' if given else ''}{urlencode(given)}"
        headers = {} if self.token is None else {"authorization": f"Bearer {self.token}"}
        options: Mapping[str, Any] = {} if self.ca_file is None else {"ca_certs": str(self.ca_file)}
        try:
            with urllib3.PoolManager(retries=False, timeout=SECONDS, **options) as http:
                # A redirect could take the token elsewhere.
                answer = http.request("GET", url, headers=headers, redirect=False, preload_content=False)
                status, data = answer.status, answer.read(_MAX_BYTES)
                answer.release_conn()
        except urllib3.exceptions.HTTPError as error:
            raise ToolError(f"{self.url} does not answer: {error}") from None
        return self._facts(status, data)

    def pages(self, path: str, items: str, most: int | None, **parameters: object) -> Iterator[dict[str, Any]]:
        """Yield the items of a list, page after page, at most so many."""
        after, left = None, most
        while left is None or left > 0:
            page = self.get(path, after=after, limit=PAGE if left is None else min(left, PAGE), **parameters)
            yield from page[items]
            after = page["next"]
            if after is None:
                return
            left = None if left is None else left - len(page[items])

    def _facts(self, status: int, data: bytes) -> dict[str, Any]:
        try:
            facts = json.loads(data)
        except ValueError:
            raise ToolError(f"{self.url} answers {status} and not in JSON; is it a repo-server?") from None
        if status != _OK or not isinstance(facts, dict):
            said = facts.get("message") if isinstance(facts, dict) else None
            kind = Usage if status == _NOT_UNDERSTOOD else ToolError
            raise kind(f"{self.url} answers {status}: {said or 'nothing that could be understood'}")
        return facts


def open_server(url: str | None, token_file: Path | None, ca_file: Path | None) -> Server:
    """Check what was given and return the server; raise ``Usage``, ``Refused`` or ``OSError``."""
    if url is None:
        raise Usage("which server? say --server URL, or set REPOTOOL_SERVER")
    scheme, host = _address(url)
    if token_file is None:
        return Server(url.rstrip("/"), None, ca_file)
    try:
        require_private(token_file)
    except StateExposed as error:
        raise Refused(str(error)) from None
    if scheme == "http" and not _is_loopback(host):
        raise Refused(f"--server {url}: the token would go over the network in the clear; use https")
    token = token_file.read_text(encoding="utf-8", errors="replace").strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise Usage(f"{token_file} does not hold a token; make one with: repo-server token add NAME")
    return Server(url.rstrip("/"), token, ca_file)


def _address(url: str) -> tuple[str, str]:
    """Return scheme and host of a server's URL; raise ``Usage``."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in {"http", "https"} or not parts.hostname or port == 0 or parts.query or parts.fragment:
        raise Usage(f"--server {url!r}: expected http(s)://host[:port]")
    return parts.scheme, parts.hostname


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
