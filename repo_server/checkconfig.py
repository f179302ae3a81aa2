"""``repo-server check-config``: everything that would keep a server from starting or serving, without starting it.

Nothing is changed, and a server that runs with the same settings is no obstacle. PostgreSQL and Redis are asked whether
they are there, for some seconds at most; a server would start without them, so that they are away is a warning.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from cryptography import x509

from repo_server.access.auth import CredentialsInvalid, Keys, parse_secrets
from repo_server.access.redisbuckets import client_url
from repo_server.access.tokens import TOKENS_NAME, parse_tokens
from repo_server.doubts import doubts
from repo_server.failures import FAILED, REFUSED, USAGE, exit_code, sentence
from repo_server.settings import Settings, SettingsInvalid, Unsafe, check_exposure, check_places
from repo_server.statefolder import StateError, require_private, require_state
from repo_server.store import DatabaseAway, UrlInvalid
from repo_server.store.database import POOL_SIZE
from repo_server.store.probe import connections_of
from repo_server.store.source import GivenServer
from repo_server.traffic import AUDIT_NAME
from repo_server.tree.rules import RuleBook
from repo_server.web.listener import StartError, require_address, require_tree
from repo_server.web.tls import Tls

_PATIENCE_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong, and the exit code that belongs to it; 0: a server would start all the same."""

    message: str
    code: int


@dataclass(slots=True)
class _Findings:
    found: list[Finding] = field(default_factory=list)

    def attempt(self, work: Callable[[], object]) -> bool:
        """Do something of what a start does; note what is wrong with it. Return whether nothing is."""
        try:
            work()
        except (SettingsInvalid, Unsafe, CredentialsInvalid, UrlInvalid, StartError, StateError, OSError) as error:
            self.found.append(Finding(sentence(error), exit_code(error)))
            return False
        return True

    def note(self, message: str, code: int = 0) -> None:
        self.found.append(Finding(message, code))


def check(settings: Settings, now: datetime) -> tuple[Finding, ...]:
    """Return everything that is wrong, in the order in which a start would come upon it."""
    findings = _Findings()
    findings.attempt(lambda: check_exposure(settings))
    findings.attempt(lambda: check_places(settings))
    for doubt in doubts(settings):
        findings.note(doubt)
    if findings.attempt(lambda: require_tree(settings.tree)):
        for problem in RuleBook(settings.tree).read({}, now).problems:
            findings.note(f"{settings.tree / problem.path}: {problem.message}", FAILED)
    _state(findings, settings)
    findings.attempt(lambda: require_address(settings.host, settings.port))
    for message, code in _paths(settings):
        findings.note(message, code)
    if settings.secrets is not None:
        _credentials(findings, settings.secrets, parse_secrets)
    tokens = settings.state / TOKENS_NAME
    if tokens.exists():
        _credentials(findings, tokens, parse_tokens)
    elif settings.secrets is not None:
        findings.note("there is no operator's token yet; make one with: repo-server token add NAME --state DIR")
    if settings.database_url is not None:
        _database(findings, settings.database_url, settings.workers)
    if settings.redis_url is not None:
        _redis(findings, settings.redis_url)
    if settings.tls_cert is not None and settings.tls_key is not None:
        _tls(findings, Tls(settings.tls_cert, settings.tls_key, lambda: now), now)
    return tuple(findings.found)


def _database(findings: _Findings, url: str, workers: int) -> None:
    try:
        room = connections_of(GivenServer.parse(url))
    except UrlInvalid as error:
        findings.note(str(error), USAGE)
    except DatabaseAway as error:
        findings.note(f"--database-url: {error}; agents would be served, and what they report kept on disk")
    else:
        needed = POOL_SIZE * (workers + 1 if workers > 1 else 1)
        if room < needed:
            findings.note(f"--database-url: the server takes {room} connections, and {needed} may be needed")


def _redis(findings: _Findings, url: str) -> None:
    from redis import Redis
    from redis.exceptions import RedisError

    try:
        with Redis.from_url(
            client_url(url), socket_timeout=_PATIENCE_SECONDS, socket_connect_timeout=_PATIENCE_SECONDS
        ) as redis:
            redis.ping()
    except (RedisError, OSError, ValueError) as error:
        findings.note(f"--redis-url: Redis does not answer, and limits would not be shared: {error}")


def _tls(findings: _Findings, tls: Tls, now: datetime) -> None:
    if not findings.attempt(tls.load):
        return
    begins = x509.load_pem_x509_certificate(tls.certificate.read_bytes()).not_valid_before_utc
    if begins > now:
        findings.note(f"the certificate {tls.certificate} is not valid before {begins:%Y-%m-%d %H:%M} UTC", FAILED)
    if tls.expires is not None and tls.expires <= now:
        findings.note(f"the certificate {tls.certificate} ended on {tls.expires:%Y-%m-%d %H:%M} UTC; renew it", FAILED)
    elif (ending := tls.ending()) is not None:
        findings.note(ending)


def _state(findings: _Findings, settings: Settings) -> None:
    state = settings.state
    above = next(folder for folder in (state.absolute(), *state.absolute().parents) if os.path.lexists(folder))
    if above != state.absolute():
        if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
            findings.note(f"--state {state} does not exist and cannot be made in {above}", FAILED)
    elif findings.attempt(lambda: require_state(state)) and not os.access(state, os.W_OK | os.X_OK):
        findings.note(f"--state {state} cannot be written to by this account", FAILED)


def _paths(settings: Settings) -> Iterator[tuple[str, int]]:
    audit = settings.state / AUDIT_NAME if settings.audit_log is None else settings.audit_log
    if audit.parent != settings.state and not os.access(audit.parent, os.W_OK | os.X_OK):
        yield f"--audit-log {audit}: no file can be made in {audit.parent}", 0
    if audit.exists() and not os.access(audit, os.W_OK):
        yield f"--audit-log {audit} cannot be written to by this account", 0
    if settings.online_key is not None and not os.access(settings.online_key, os.R_OK):
        yield f"--online-key {settings.online_key} cannot be read by this account", USAGE


def _credentials(findings: _Findings, path: Path, parse: Callable[[bytes, str], Keys]) -> None:
    def read() -> None:
        for doubt in parse(path.read_bytes(), str(path)).doubts:
            findings.note(doubt)

    if findings.attempt(lambda: require_private(path)):
        findings.attempt(read)


def worst(findings: tuple[Finding, ...]) -> int:
    """Return the exit code: wrong usage before refused before failed, 0 when a server would start."""
    codes = {finding.code for finding in findings}
    return next((code for code in (USAGE, REFUSED, FAILED) if code in codes), 0)
