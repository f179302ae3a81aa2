"""What the API is: every operation, who may ask for it, and what comes of it (FR-SRV-008, TR-API-001)."""

from __future__ import annotations

from typing import Any

from repo_server.core.model import COMPONENT_PATTERN, Arch, Channel, FileState, Os
from repo_server.core.problemcodes import ProblemCode
from repo_server.core.version import MAX_LENGTH
from repo_server.core.wire import CheckRequest, CheckResponse, StatusRequest, StatusResponse
from repo_server.openapi import BINARY, Api, Operation, Parameter, Who
from repo_server.telemetry.happenings import EventKind
from repo_server.views import (
    DeviceDetail,
    DevicePage,
    EventPage,
    Explanation,
    Failures,
    Health,
    PackagePage,
    ProblemPage,
    Readiness,
    RescanAnswer,
    VersionCounts,
)
from repo_server.web.errorcodes import ErrorCode
from repo_server.web.query import MAX_PAGE, PAGE

_TEXT: dict[str, Any] = {"type": "string"}
_WORDS: dict[str, Any] = {"type": "string", "minLength": 1}
_TIME: dict[str, Any] = {"type": "string", "format": "date-time"}
_PREFIX = "(?:(?:[Ww][Ii][Nn]|[Mm][Aa][Cc](?:[Oo][Ss])?|[Ll][Ii][Nn](?:[Uu][Xx])?)-)?"
_DEVICE_ID = {
    "type": "string",
    "pattern": f"^{_PREFIX}[0-9A-Fa-f]{{8}}-?(?:[0-9A-Fa-f]{{4}}-?){{3}}[0-9A-Fa-f]{{12}}$",
}
_NUMBER = "(?:0|[1-9][0-9]{0,8})"
_PRERELEASE = f"(?:{_NUMBER}|[0-9]*[A-Za-z-][0-9A-Za-z-]*)"
_RELEASE_ID = {
    "type": "string",
    "pattern": f"^{COMPONENT_PATTERN}-(?:{'|'.join(Os)})-(?:{'|'.join(Arch)})"
    rf"-{_NUMBER}\.{_NUMBER}\.{_NUMBER}(?:-{_PRERELEASE}(?:\.{_PRERELEASE})*)?$",
    "maxLength": 128,
}
_INTEGER = "(?:0|[1-9][0-9]*)"
_IDENTIFIER = f"(?:{_INTEGER}|[0-9]*[A-Za-z-][0-9A-Za-z-]*)"
_VERSION = {
    "type": "string",
    "pattern": rf"^{_INTEGER}\.{_INTEGER}\.{_INTEGER}(?:-{_IDENTIFIER}(?:\.{_IDENTIFIER})*)?$",
    "maxLength": MAX_LENGTH,
}
_COMPONENT = {"type": "string", "pattern": f"^{COMPONENT_PATTERN}$"}

_HAS_IT = Parameter("header", "If-None-Match", "ETags that the client has; 304 if the answer's is one of them.", _TEXT)
_LIMIT = Parameter(
    "query", "limit", "Most entries of the page.",
    {"type": "integer", "minimum": 1, "maximum": MAX_PAGE, "default": PAGE},
)  # fmt: skip


def _after(schema: dict[str, Any]) -> Parameter:
    return Parameter("query", "after", "`next` of the page before.", schema)


_DEVICE = Parameter("path", "device_id", "In any spelling.", _TEXT)
_SELECTING = (
    Parameter("header", "Range", "Bytes that are wanted; up to 16 ranges.", _TEXT),
    Parameter("header", "If-Range", "The ETag that the parts belong to; the whole file if it has another.", _TEXT),
    Parameter("header", "If-Match", "ETags, one of which the file must have.", _TEXT),
    _HAS_IT,
)
_PAGE_ERRORS = (ErrorCode.INVALID_PARAMETER, ErrorCode.INVALID_LIMIT)
_FILE_ERRORS = (
    ErrorCode.NOT_FOUND,
    ErrorCode.BLOCKED,
    ErrorCode.CHANGED,
    ErrorCode.PRECONDITION_FAILED,
    ErrorCode.RANGE_NOT_SATISFIABLE,
    ErrorCode.NOT_READY,
)
_DEVICE_ERRORS = (ErrorCode.INVALID_DEVICE_ID, ErrorCode.UNKNOWN_DEVICE, ErrorCode.DATABASE_UNAVAILABLE)


def _one_of(name: str, words: Any, text: str = "Only these.") -> Parameter:
    return Parameter("query", name, text, {"enum": [str(word) for word in words]})


_FLEET = (
    _one_of("channel", Channel), _one_of("os", Os), _one_of("arch", Arch),
    Parameter("query", "health", "Only with this health.", _WORDS),
    Parameter("query", "org_id", "Only of this organisation.", {"type": "string", "format": "uuid"}),
    Parameter("query", "site_id", "Only of this site.", _WORDS),
    Parameter("query", "component", "Only with this component.", _COMPONENT),
    Parameter("query", "version", "Only with this version of the component.", _VERSION),
    Parameter("query", "seen_before", "Only those that last asked before.", _TIME),
    Parameter("query", "seen_after", "Only those that last asked then or after.", _TIME),
    Parameter("query", "shared_id", "Whether two machines were seen to use the id.", {"type": "boolean"}),
    Parameter("query", "registered", "Whether CommandIT knows the device.", {"type": "boolean"}),
)  # fmt: skip


def _file(path: str, id_: str, summary: str, who: Who, kinds: str = BINARY) -> Operation:
    name = path.rpartition("{")[2].rstrip("}")
    where = Parameter("path", name, "As it stands in the tree, with its slashes.", _TEXT)
    return Operation(
        "GET", path, id_, summary, who, {200: kinds, 206: "*/*", 304: None}, _FILE_ERRORS, None, (where, *_SELECTING)
    )


_OPERATIONS = (
    Operation(
        "POST", "/v1/check", "check", "What should this device install?", Who.AGENT, {200: CheckResponse},
        (
            ErrorCode.INVALID_HOST, ErrorCode.INVALID_DEVICE_ID, ErrorCode.INVALID_OS, ErrorCode.INVALID_ARCH,
            ErrorCode.INVALID_CHANNEL, ErrorCode.DUPLICATE_COMPONENT, ErrorCode.NOT_READY,
        ),
        CheckRequest,
    ),
    Operation(
        "POST", "/v1/status", "status", "The update log of a device.", Who.AGENT, {200: StatusResponse},
        (ErrorCode.INVALID_DEVICE_ID, ErrorCode.DATABASE_UNAVAILABLE), StatusRequest,
    ),
    _file("/v1/packages/{path}", "package", "A release file.", Who.AGENT),
    _file("/tree/{path}", "tree", "A release file or a sidecar of it, as a mirror has it.", Who.AGENT, "*/*"),
    _file("/metadata/{name}", "metadata", "Signed TUF metadata.", Who.AGENT, "application/json"),
    Operation(
        "GET", "/v1/packages", "packages", "Releases, by component, platform and version.", Who.OPERATOR,
        {200: PackagePage, 304: None}, (*_PAGE_ERRORS, ErrorCode.INVALID_HOST, ErrorCode.NOT_READY), None,
        (
            _after(_RELEASE_ID), _LIMIT,
            Parameter("query", "component", "Only this one.", _COMPONENT),
            Parameter("query", "version", "Only this one.", _VERSION),
            _one_of("channel", Channel), _one_of("os", Os), _one_of("arch", Arch),
            Parameter("query", "active", "`false`: only what is recalled.", {"type": "boolean"}),
            _HAS_IT,
        ),
    ),
    Operation(
        "GET", "/v1/problems", "problems", "What is not offered, and what is wrong with the server.", Who.OPERATOR,
        {200: ProblemPage, 304: None}, (*_PAGE_ERRORS, ErrorCode.NOT_READY), None,
        (
            _after(_WORDS), _LIMIT,
            _one_of("code", ProblemCode, "Only files with this reason."), _one_of("state", FileState), _HAS_IT,
        ),
    ),
    Operation(
        "POST", "/v1/rescan", "rescan", "Look at the whole tree soon.", Who.OPERATOR, {202: RescanAnswer},
        (ErrorCode.FORBIDDEN, ErrorCode.INVALID_PARAMETER),
    ),
    Operation(
        "GET", "/v1/devices", "devices", "Devices, by id.", Who.OPERATOR, {200: DevicePage},
        (*_PAGE_ERRORS, ErrorCode.INVALID_DEVICE_ID, ErrorCode.DATABASE_UNAVAILABLE), None,
        (_after(_DEVICE_ID), _LIMIT, *_FLEET),
    ),
    Operation(
        "GET", "/v1/versions", "versions", "Devices by channel, platform, component and version.", Who.OPERATOR,
        {200: VersionCounts}, (ErrorCode.INVALID_PARAMETER, ErrorCode.DATABASE_UNAVAILABLE), None, _FLEET,
    ),
    Operation(
        "GET", "/v1/failures", "failures", "Failed attempts by signature, and attempts by version.", Who.OPERATOR,
        {200: Failures}, (*_PAGE_ERRORS, ErrorCode.DATABASE_UNAVAILABLE), None,
        (
            Parameter("query", "since", "Received since then; a week unless it says otherwise.", _TIME),
            Parameter("query", "component", "Only this one.", _COMPONENT),
            Parameter("query", "version", "Only this requested version.", _VERSION),
            _LIMIT,
        ),
    ),
    Operation(
        "GET", "/v1/events", "events", "What happened to releases, rules and credentials, newest first.", Who.OPERATOR,
        {200: EventPage}, (*_PAGE_ERRORS, ErrorCode.DATABASE_UNAVAILABLE), None,
        (
            _one_of("kind", EventKind),
            Parameter("query", "subject", "Only about this.", _WORDS),
            Parameter("query", "since", "Only then or later.", _TIME),
            _after(_TEXT), _LIMIT,
        ),
    ),
    Operation(
        "GET", "/v1/devices/{device_id}", "device", "A device and its last attempts.", Who.OPERATOR,
        {200: DeviceDetail}, (*_DEVICE_ERRORS, *_PAGE_ERRORS, ErrorCode.NOT_FOUND), None, (_DEVICE, _LIMIT),
    ),
    Operation(
        "GET", "/v1/devices/{device_id}/explain", "explain", "What a device would be offered now, and why.",
        Who.OPERATOR, {200: Explanation},
        (
            *_DEVICE_ERRORS, ErrorCode.INVALID_PARAMETER, ErrorCode.NOT_FOUND, ErrorCode.NEVER_CHECKED_IN,
            ErrorCode.NOT_READY,
        ),
        None, (_DEVICE,),
    ),
    Operation("GET", "/healthz", "healthz", "Whether the process answers.", Who.ANYBODY, {200: Health}),
    Operation(
        "GET", "/readyz", "readyz", "Whether agents are served (200), or why not yet (503).", Who.ANYBODY,
        {200: Readiness, 503: Readiness},
    ),
    Operation(
        "GET", "/metrics", "metrics", "Figures for Prometheus; with `--public-metrics` for everybody.", Who.OPERATOR,
        {200: "text/plain"},
    ),
    Operation(
        "GET", "/v1/openapi.json", "openapi", "This document.", Who.ANYBODY, {200: dict[str, Any], 304: None}, (),
        None, (_HAS_IT,),
    ),
)  # fmt: skip

API = Api(
    title="CommandIT updates: repository server",
    version="1",
    text="Agents ask what to install and fetch it; operators look at what is offered, and at devices. "
    "Every error is JSON with an `error_code` that stays the same. A server without secrets lets everybody in.",
    operations=_OPERATIONS,
    refined={
        ("CheckRequest", "os"): {"enum": [str(word) for word in Os]},
        ("CheckRequest", "arch"): {"enum": [str(word) for word in Arch]},
        ("CheckRequest", "release_channel"): {
            "enum": [*(str(word) for word in Channel), ""],
            "description": "Empty: whatever else decides.",
        },
        ("CheckRequest", "device_id"): {"anyOf": [_DEVICE_ID, {"type": "null"}], "default": None},
        ("StatusRequest", "device_id"): _DEVICE_ID,
    },
)
