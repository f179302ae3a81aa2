"""What an answer means that is not the one that was asked for (EH-CLI-001)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from agent.backoff import http_date, retry_after_seconds
from agent.codes import Code
from agent.errors import NetworkFailure
from agent.http import Answer, describe

_CODES: Mapping[int, Code] = {
    401: Code.UNAUTHORIZED,
    403: Code.UNAUTHORIZED,
    429: Code.RATE_LIMITED,
    511: Code.CAPTIVE_PORTAL,
}


def refusal(answer: Answer, said: str = "", now: datetime | None = None) -> NetworkFailure:
    """Return what an error's status means; ``said``: the server's own words.

    A date in ``Retry-After`` is meant by the server's clock, which it says; ``now`` is for one that does not.
    """
    return NetworkFailure(
        _CODES.get(answer.status, Code.HTTP_STATUS),
        f"{answer.url} answers {describe(answer.status)}{': ' + said if said else ''}",
        retry_after_seconds=retry_after_seconds(answer.header("retry-after"), http_date(answer.header("date")) or now),
        status=answer.status,
    )


def captive_portal(answer: Answer, start: bytes) -> NetworkFailure | None:
    """Return the failure if an answer is a web page, such as a login page of a hotel's network, whatever it says."""
    if "html" not in (answer.header("content-type") or "").lower() and start.lstrip()[:1] != b"<":
        return None
    return NetworkFailure(
        Code.CAPTIVE_PORTAL,
        f"{answer.url} answers with a web page; if this network has a login page, log in",
        status=answer.status,
    )
