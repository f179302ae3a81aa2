"""Every error that the API answers with: a stable code, its status, and what it means (EH-SRV-001).

A code that goes out of use is not given another meaning. ``repo_server/README.md`` has the table.
"""

from __future__ import annotations

import enum
from typing import Self


class ErrorCode(enum.StrEnum):
    """An ``error_code``, the HTTP status that it comes with, and its meaning."""

    status: int
    meaning: str

    def __new__(cls, code: str, status: int, meaning: str) -> Self:
        """Attach status and meaning to the code."""
        member = str.__new__(cls, code)
        member._value_ = code
        member.status = status
        member.meaning = meaning
        return member

    MALFORMED_REQUEST = "malformed_request", 400, "What came is not HTTP."
    DUPLICATE_HEADER = "duplicate_header", 400, "A header that may stand once stands there twice."
    INVALID_HOST = "invalid_host", 400, "The Host header is missing, or is not a host's name or address."
    EMPTY_BODY = "empty_body", 400, "A JSON object was expected, and nothing came."
    MALFORMED_JSON = "malformed_json", 400, "The body is not JSON."
    UNAUTHORIZED = "unauthorized", 401, "The agent's secret, or the operator's token, is missing or not active."
    FORBIDDEN = "forbidden", 403, "The token's role does not suffice."
    NOT_FOUND = "not_found", 404, "There is no such endpoint or file."
    BLOCKED = "blocked", 404, "The release is recalled, and its file is not served."
    UNKNOWN_DEVICE = "unknown_device", 404, "No such device has checked in."
    METHOD_NOT_ALLOWED = "method_not_allowed", 405, "The endpoint has other methods; `Allow` names them."
    REQUEST_TIMEOUT = "request_timeout", 408, "The request took too long to arrive."
    CHANGED = "changed", 409, "The file was changed under its name, and is being checked; it is not served until then."
    NEVER_CHECKED_IN = "never_checked_in", 409, "The device has reported, but never asked for updates."
    PRECONDITION_FAILED = "precondition_failed", 412, "The file has another ETag than `If-Match` names."
    BODY_TOO_LARGE = "body_too_large", 413, "The body has more bytes than the endpoint takes."
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type", 415, "The body says that it is something else than plain JSON."
    RANGE_NOT_SATISFIABLE = "range_not_satisfiable", 416, "No byte of the range exists; `Content-Range` has the size."
    INVALID_REQUEST = "invalid_request", 422, "The body is JSON of another shape; the message names the field."
    INVALID_DEVICE_ID = "invalid_device_id", 422, "A device id is a UUID; `win-` and the like may stand before it."
    INVALID_OS = "invalid_os", 422, "`os` is not one of windows, macos, linux."
    INVALID_ARCH = "invalid_arch", 422, "`arch` is not one of amd64, arm64."
    INVALID_CHANNEL = "invalid_channel", 422, "`release_channel` is not one of stable, beta, alpha."
    DUPLICATE_COMPONENT = "duplicate_component", 422, "`components` names a component twice."
    INVALID_PARAMETER = "invalid_parameter", 422, "A query parameter is unknown, stands twice, or has no such value."
    INVALID_LIMIT = "invalid_limit", 422, "`limit` is not a number from 1 to 1000."
    RATE_LIMITED = "rate_limited", 429, "Too many requests; come back after `Retry-After` seconds."
    HEAD_TOO_LARGE = "head_too_large", 431, "Request line and headers have too many bytes."
    INTERNAL_ERROR = "internal_error", 500, "The server failed; its log says how."
    UNKNOWN_CODING = "unknown_coding", 501, "The body is in a transfer coding other than `chunked`."
    NOT_READY = "not_ready", 503, "The first look at the tree is not finished; come back after `Retry-After` seconds."
    OVERLOADED = "overloaded", 503, "Too many requests at once; come back after `Retry-After` seconds."
    DATABASE_UNAVAILABLE = "database_unavailable", 503, "The database does not answer; come back after `Retry-After`."


def markdown_table() -> str:
    """Return the table of the documentation."""
    rows = [f"| {code.status} | `{code}` | {code.meaning} |" for code in ErrorCode]
    return "\n".join(["| status | `error_code` | meaning |", "|---|---|---|", *rows])
