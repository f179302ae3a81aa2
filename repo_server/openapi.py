"""Turns a table of operations and the wire types into an OpenAPI 3.1 document (TR-API-001, FR-SRV-008). Pure."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from repo_server.core.wire import SECRET_HEADER, ErrorBody
from repo_server.web.errorcodes import ErrorCode

BINARY = "application/octet-stream"
_REF = "#/components/schemas/{name}"
_SECURITY = {
    "agentSecret": {"type": "apiKey", "in": "header", "name": SECRET_HEADER},
    "operatorToken": {"type": "http", "scheme": "bearer"},
}
_ANYBODY_SEES = (
    ErrorCode.MALFORMED_REQUEST,
    ErrorCode.DUPLICATE_HEADER,
    ErrorCode.RATE_LIMITED,
    ErrorCode.REQUEST_TIMEOUT,
    ErrorCode.HEAD_TOO_LARGE,
    ErrorCode.UNKNOWN_CODING,
    ErrorCode.INTERNAL_ERROR,
    ErrorCode.OVERLOADED,
)
_AFTER = {429, 503}
"""Statuses that say when to come back."""


class Who(enum.Enum):
    """Who may ask."""

    AGENT = "agentSecret"
    OPERATOR = "operatorToken"
    ANYBODY = None


@dataclass(frozen=True, slots=True)
class Parameter:
    """A part of the path, of the query, or a header."""

    place: str
    name: str
    text: str
    schema: Mapping[str, Any]

    def described(self) -> dict[str, Any]:
        """Return it as OpenAPI has it."""
        return {
            "in": self.place,
            "name": self.name,
            "description": self.text,
            "required": self.place == "path",
            "schema": dict(self.schema),
        }


@dataclass(frozen=True, slots=True)
class Operation:
    """What one method of one path takes and gives."""

    method: str
    path: str
    id: str
    summary: str
    who: Who
    answers: Mapping[int, Any]
    """Status → type of the JSON, the media type of a file, or ``None`` for no body."""
    errors: Sequence[ErrorCode] = ()
    takes: Any = None
    """Type of the JSON body."""
    parameters: Sequence[Parameter] = ()

    def every_error(self) -> list[ErrorCode]:
        """Return the errors that this operation can answer with."""
        found = {*self.errors, *_ANYBODY_SEES}
        if self.who is not Who.ANYBODY:
            found.add(ErrorCode.UNAUTHORIZED)
        if self.takes is not None:
            found |= {
                ErrorCode.EMPTY_BODY, ErrorCode.MALFORMED_JSON, ErrorCode.BODY_TOO_LARGE,
                ErrorCode.UNSUPPORTED_MEDIA_TYPE, ErrorCode.INVALID_REQUEST,
            }  # fmt: skip
        return [code for code in ErrorCode if code in found]


@dataclass(frozen=True, slots=True)
class Api:
    """Everything that the document is made from."""

    title: str
    version: str
    text: str
    operations: Sequence[Operation]
    refined: Mapping[tuple[str, str], Mapping[str, Any]] = field(default_factory=dict)
    """(Type, field) → the field's schema where the API takes less than its type."""


def document(api: Api) -> dict[str, Any]:
    """Return the OpenAPI document."""
    types = list(dict.fromkeys(_types(api.operations)))
    references, components = msgspec.json.schema_components(types, ref_template=_REF)
    for (name, of), schema in api.refined.items():
        components[name]["properties"][of] = dict(schema)
    schemas = dict(zip(types, references, strict=True))
    errors = _Errors()
    paths: dict[str, dict[str, Any]] = {}
    for operation in api.operations:
        described = _described(operation, schemas, errors)
        paths.setdefault(operation.path, {})[operation.method.lower()] = described
        if operation.method == "GET":
            paths[operation.path]["head"] = _without_bodies(described)
    return {
        "openapi": "3.1.0",
        "info": {"title": api.title, "version": api.version, "description": api.text},
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": dict(sorted(components.items())),
            "responses": errors.responses,
            "securitySchemes": _SECURITY,
        },
    }


def _types(operations: Iterable[Operation]) -> Iterable[Any]:
    yield ErrorBody
    for operation in operations:
        if operation.takes is not None:
            yield operation.takes
        yield from (kind for kind in operation.answers.values() if kind is not None and not isinstance(kind, str))


@dataclass(slots=True)
class _Errors:
    """The answers that are errors, each set of codes once."""

    responses: dict[str, dict[str, Any]] = field(default_factory=dict)
    _names: dict[tuple[ErrorCode, ...], str] = field(default_factory=dict)

    def answer(self, codes: Sequence[ErrorCode]) -> dict[str, Any]:
        """Return a reference to the answer with one of these codes, which have one status."""
        name = self._names.get(tuple(codes))
        if name is None:
            status = codes[0].status
            name = f"Error{status}-{1 + sum(one.startswith(f'Error{status}-') for one in self.responses)}"
            self._names[tuple(codes)] = name
            self.responses[name] = _error(status, codes)
        return {"$ref": f"#/components/responses/{name}"}


def _described(operation: Operation, schemas: Mapping[Any, Any], errors: _Errors) -> dict[str, Any]:
    responses = {str(status): _answer(status, kind, schemas) for status, kind in operation.answers.items()}
    by_status: dict[int, list[ErrorCode]] = {}
    for code in operation.every_error():
        by_status.setdefault(code.status, []).append(code)
    for status, codes in sorted(by_status.items()):
        own = responses.get(str(status))
        responses[str(status)] = errors.answer(codes) if own is None else _either(own, _error(status, codes))
    found: dict[str, Any] = {"operationId": operation.id, "summary": operation.summary, "responses": responses}
    if operation.parameters:
        found["parameters"] = [parameter.described() for parameter in operation.parameters]
    if operation.takes is not None:
        found["requestBody"] = {"required": True, "content": _json(schemas[operation.takes])}
    found["security"] = [] if operation.who.value is None else [{operation.who.value: []}]
    return found


def _answer(status: int, kind: Any, schemas: Mapping[Any, Any]) -> dict[str, Any]:
    words = {200: "Done.", 202: "Taken.", 206: "A part.", 304: "Not modified."}
    answer: dict[str, Any] = {"description": words.get(status, "An answer.")}
    if isinstance(kind, str):
        answer["content"] = {kind: {} if kind.endswith(("json", "*")) else {"schema": {"type": "string"}}}
    elif kind is not None:
        answer["content"] = _json(schemas[kind])
    return answer


def _error(status: int, codes: Sequence[ErrorCode]) -> dict[str, Any]:
    names = {"type": "object", "properties": {"error_code": {"enum": [str(code) for code in codes]}}}
    body = {"allOf": [{"$ref": _REF.format(name=ErrorBody.__name__)}, names]}
    answer: dict[str, Any] = {
        "description": " ".join(f"`{code}`: {code.meaning}" for code in codes),
        "content": _json(body),
    }
    if status in _AFTER:
        answer["headers"] = {"Retry-After": {"required": True, "schema": {"type": "integer", "minimum": 1}}}
    return answer


def _either(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Return an answer that is one of two kinds of JSON; no header is common to both."""
    schemas = [answer["content"]["application/json"]["schema"] for answer in (one, other)]
    return {"description": f"{one['description']} {other['description']}", "content": _json({"anyOf": schemas})}


def _json(schema: Any) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _without_bodies(described: Mapping[str, Any]) -> dict[str, Any]:
    responses = {
        status: {"description": "What GET answers, without its body."}
        | ({"headers": answer["headers"]} if "headers" in answer else {})
        for status, answer in described["responses"].items()
    }
    return {**described, "operationId": f"{described['operationId']}Head", "responses": responses}
