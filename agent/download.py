"""Fetches a package file: resumed, bounded, verified while it arrives (FR-UPD-005, FR-UPD-006, NFR-PER-002)."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from agent.backoff import full_jitter
from agent.codes import Code
from agent.errors import AgentError, LocalFailure, NetworkFailure, TrustRefused
from agent.http import Answer, Transport, describe
from agent.partfile import Entity, PartFile, open_part, reusable
from agent.refusals import captive_portal, refusal
from agent.urls import below
from repo_server.core.wire import Update

_SHA256 = re.compile(r"[0-9a-f]{64}")
_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)")
_STRONG_ETAG = re.compile(r'"[!#-~]{1,200}"')
_LONGEST_PAUSE = 30.0
_OK, _PARTIAL = 200, 206
_CHANGED = frozenset({412, 416})


@dataclass(frozen=True, slots=True)
class DownloadLimits:
    """Bounds of one download; what arrived by then is kept and resumed in the next cycle."""

    deadline_seconds: float = 6 * 3600.0
    slowest_bytes_per_second: float = 1024.0
    """Averaged over ``window_seconds``; a slower source is left for the next."""
    window_seconds: float = 30.0
    attempts_per_source: int = 3
    """In a row without a new byte."""
    spare_bytes: int = 32 * 1024 * 1024
    """Space that must be left on the disk."""
    largest_bytes: int = 8 * 1024**3


class _Meter:
    """How fast bytes come from one source, pauses included."""

    def __init__(self, limits: DownloadLimits, now: float, deadline: float) -> None:
        self._limits = limits
        self._since, self._bytes = now, 0
        self._deadline = deadline

    def count(self, size: int, now: float, url: str) -> None:
        """Note bytes; raise ``NetworkFailure`` (TIMEOUT) when they come too slowly or too late."""
        self._bytes += size
        if now > self._deadline:
            raise _TooSlow(Code.TIMEOUT, f"{url}: the download took too long; it is resumed in the next cycle")
        elapsed = now - self._since
        if elapsed >= self._limits.window_seconds:
            rate = self._bytes / elapsed
            if rate < self._limits.slowest_bytes_per_second:
                raise _TooSlow(
                    Code.TIMEOUT,
                    f"{url} sends {rate:.0f} bytes a second; "
                    f"expected {self._limits.slowest_bytes_per_second:.0f} or more",
                )
            self._since, self._bytes = now, 0


class _TooSlow(NetworkFailure):
    """Asking this source again would not help."""


class Downloader:
    """Fetches from the servers, then from the mirrors, in order."""

    def __init__(
        self,
        transport: Transport,
        servers: Sequence[str],
        mirrors: Sequence[str],
        *,
        sleep: Callable[[float], None],
        random: Callable[[], float],
        monotonic: Callable[[], float],
        free_bytes: Callable[[Path], int],
        limits: DownloadLimits = DownloadLimits(),
    ) -> None:
        self._transport = transport
        self._servers = tuple(servers)
        self._mirrors = tuple(mirrors)
        self._sleep = sleep
        self._random = random
        self._monotonic = monotonic
        self._free_bytes = free_bytes
        self._limits = limits
        self.retry_after_seconds: float | None = None
        """When the sources of the last download that failed want to be asked again; ``None``: they did not say."""

    def fetch(self, update: Update, into: Path) -> Path:
        """Return the file ``into/<sha256>`` with exactly the announced bytes, durable.

        Raises ``NetworkFailure`` (the part stays and is resumed), ``TrustRefused`` (HASH_MISMATCH, SIZE_MISMATCH,
        OFFER_INVALID; nothing is left then) or ``LocalFailure`` (DISK_FULL before the first byte if it cannot fit,
        FR-UPD-008).
        """
        self._check(update)
        whole = into / update.hash_sha256
        if reusable(whole, update.hash_sha256, update.size):
            return whole
        with open_part(into, update.hash_sha256, update.size) as part:
            if part.verified:
                return part.finish()
            if part.complete:
                part.restart()
            self._check_space(part, into)
            try:
                return self._from_any(update, part)
            except NetworkFailure as failure:
                self.retry_after_seconds = failure.retry_after_seconds
                raise
            except (TrustRefused, LocalFailure):
                # A disk that is full is not left full, and wrong bytes are not kept (FR-UPD-008, EH-CLI-002).
                part.discard()
                raise

    def _check(self, update: Update) -> None:
        if not _SHA256.fullmatch(update.hash_sha256):
            raise TrustRefused(Code.OFFER_INVALID, f"{update.name}: {update.hash_sha256!r:.80} is not a SHA-256 digest")
        if not 0 < update.size <= self._limits.largest_bytes:
            raise TrustRefused(
                Code.OFFER_INVALID,
                f"{update.name}: a size of {update.size} bytes; expected 1 to {self._limits.largest_bytes}",
            )

    def _check_space(self, part: PartFile, into: Path) -> None:
        needed, free = part.missing + self._limits.spare_bytes, self._free_bytes(into)
        if free < needed:
            raise LocalFailure(
                Code.DISK_FULL, f"{free} bytes are free at {into}; the download needs {needed}; free some space"
            )

    def _from_any(self, update: Update, part: PartFile) -> Path:
        deadline = self._monotonic() + self._limits.deadline_seconds
        failures: list[AgentError] = []
        for url in self._sources(update):
            try:
                self._from_one(url, part, deadline)
                return part.finish()
            except NetworkFailure as failure:
                failures.append(failure)
            except TrustRefused as failure:
                # The next source must not continue what may be wrong from the first byte.
                part.restart()
                failures.append(failure)
        raise _together(update, failures)

    def _sources(self, update: Update) -> Iterator[str]:
        """Yield where the file may be: as the server says, then its path below each mirror."""
        seen = set()
        for url in self._candidates(update):
            if url not in seen and self._transport.reaches(url):
                seen.add(url)
                yield url

    def _candidates(self, update: Update) -> Iterator[str]:
        try:
            parts = urlsplit(update.url)
        except ValueError:
            # "http://[x": the mirrors have the file all the same.
            parts = urlsplit("")
        if parts.scheme:
            yield update.url
        # Behind a proxy a server may not know its own name; its path is right all the same.
        path = f"{parts.path}{'?' + parts.query if parts.query else ''}"
        if path.startswith("/"):
            yield from (f"{server}{path}" for server in self._servers)
        for mirror in self._mirrors:
            try:
                yield below(mirror, update.path)
            except ValueError as error:
                raise TrustRefused(Code.OFFER_INVALID, f"{update.name}: {error}") from None

    def _from_one(self, url: str, part: PartFile, deadline: float) -> None:
        meter = _Meter(self._limits, self._monotonic(), deadline)
        idle = mismatches = 0
        while True:
            before = part.offset
            try:
                self._exchange(url, part, meter)
            except _TooSlow:
                raise
            except NetworkFailure as failure:
                idle = 0 if part.offset > before else idle + 1
                if idle >= self._limits.attempts_per_source or not _may_pass(failure):
                    raise
                self._sleep(full_jitter(idle, 1.0, _LONGEST_PAUSE, self._random))
                meter.count(0, self._monotonic(), url)
                continue
            if part.verified:
                return
            mismatches += 1
            resumed = part.resumed
            part.restart()
            if not resumed or mismatches > 1:
                raise TrustRefused(Code.HASH_MISMATCH, f"{url} sends other bytes than the announced; discarded")
            # The wrong bytes may be those of an earlier cycle or another source: once more from the start.

    def _exchange(self, url: str, part: PartFile, meter: _Meter) -> None:
        """Fetch what is missing in one request; returns with a complete part or raises."""
        headers = {"Accept": "*/*"}
        entity = part.entity()
        if part.offset:
            headers["Range"] = f"bytes={part.offset}-"
            if entity is not None and entity.url == url:
                headers["If-Range"] = entity.etag
        with self._transport.send("GET", url, headers=headers) as answer:
            if answer.status in _CHANGED and part.offset:
                part.restart()
                raise NetworkFailure(Code.HTTP_STATUS, f"{url} answers {describe(answer.status)}; starting again")
            self._begin(answer, part)
            tag = answer.header("etag")
            found = Entity(url, tag) if tag and _STRONG_ETAG.fullmatch(tag) else None
            if found != entity:
                part.remember(found)
            pieces = answer.pieces()
            first = next(pieces, b"")
            if answer.status == _OK:
                _check_whole(answer, part, first)
            for piece in itertools.chain((first,), pieces):
                part.append(piece)
                meter.count(len(piece), self._monotonic(), url)
        if not part.complete:
            raise NetworkFailure(Code.NETWORK, f"{url} ended its answer {part.missing} bytes early")

    def _begin(self, answer: Answer, part: PartFile) -> None:
        """Check that the body continues the part, or begin the part anew."""
        if answer.status == _PARTIAL:
            wanted = (part.offset, part.offset + part.missing - 1, part.offset + part.missing)
            match = _CONTENT_RANGE.fullmatch(answer.header("content-range") or "")
            got = None if match is None else tuple(-1 if text == "*" else int(text) for text in match.groups())
            if got is None or got[:2] != wanted[:2] or got[2] not in {wanted[2], -1}:
                part.restart()
                raise NetworkFailure(
                    Code.BAD_RESPONSE,
                    f"{answer.url} sends the range {answer.header('content-range')!r:.80}; expected "
                    f"bytes {wanted[0]}-{wanted[1]}/{wanted[2]}",
                )
            part.resumed = part.offset > 0
            return
        if answer.status != _OK:
            raise refusal(answer)
        if part.offset:
            part.restart()


def _check_whole(answer: Answer, part: PartFile, first: bytes) -> None:
    """Refuse a web page, whatever it calls itself, and a file of another size."""
    page = captive_portal(answer, first)
    if page is not None:
        raise page
    length = answer.header("content-length")
    if length is not None and length != str(part.missing):
        raise TrustRefused(Code.SIZE_MISMATCH, f"{answer.url} has {length} bytes; announced are {part.missing}")


def _may_pass(failure: NetworkFailure) -> bool:
    if failure.retry_after_seconds is not None or failure.code in {Code.TLS, Code.REDIRECT_REFUSED}:
        return False
    return failure.status is None or failure.status in {408, 429} or failure.status >= 500  # noqa: PLR2004 -- 5xx


def _together(update: Update, failures: Sequence[AgentError]) -> AgentError:
    if not failures:
        return NetworkFailure(Code.NO_SOURCE, f"{update.url!r:.200} is at no configured host, and there is no mirror")
    message = f"{update.name} {update.version}: " + "; ".join(failure.message for failure in failures)
    # Wrong bytes weigh more than silence: somebody must look at the source that sent them.
    refused = next((failure for failure in failures if isinstance(failure, TrustRefused)), None)
    if refused is not None:
        return TrustRefused(refused.code, message)
    network = [failure for failure in failures if isinstance(failure, NetworkFailure)]
    missing = all(failure.status in {404, 410} for failure in network)
    waits = [failure.retry_after_seconds for failure in network if failure.retry_after_seconds is not None]
    return NetworkFailure(
        Code.NO_SOURCE if missing else network[0].code, message, retry_after_seconds=max(waits, default=None)
    )
