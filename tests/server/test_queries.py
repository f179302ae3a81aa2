"""What a query says and nobody understands is an error, in every list (EH-SRV-001, promise 3)."""

from __future__ import annotations

import uuid
from urllib.parse import quote

import pytest
from support.server import RunningServer

from repo_server.openapi import Operation, Parameter
from repo_server.operations import API

DEVICE = str(uuid.UUID(int=9))
ASKED = [one for one in API.operations if any(item.place == "query" for item in one.parameters)]
FREE = {"health", "site_id", "subject", "after"}
"""May be any text, where they are not empty; ``after`` in the list of problems is a path."""


def refusal(server: RunningServer, path: str) -> tuple[int, str, str]:
    answer = server.get(path)
    said = answer.json()
    return answer.status, said.get("error_code", ""), said.get("message", "")


def queried(operation: Operation) -> list[Parameter]:
    return [item for item in operation.parameters if item.place == "query"]


@pytest.mark.parametrize("operation", ASKED, ids=lambda one: one.id)
def test_every_parameter_of_every_list_refuses_what_it_does_not_understand(
    server: RunningServer, operation: Operation
) -> None:
    """A value that no entry can have must not look like a list without entries."""
    path = operation.path.replace("{device_id}", DEVICE)
    for parameter in queried(operation):
        odd = ["", "%00", "%ff"] + ([] if parameter.name in FREE else ["nonsense!", "Nonsense", "1.x"])
        for value in odd:
            component = "component=service&" if parameter.name == "version" else ""
            status, code, message = refusal(server, f"{path}?{component}{parameter.name}={value}")
            assert (status, code.partition("_")[0]) == (422, "invalid"), (path, parameter.name, value)
            assert message, (path, parameter.name, value)


@pytest.mark.parametrize("operation", ASKED, ids=lambda one: one.id)
def test_every_list_names_the_parameters_that_it_knows(server: RunningServer, operation: Operation) -> None:
    path = operation.path.replace("{device_id}", DEVICE)
    status, code, message = refusal(server, f"{path}?chanel=beta")
    assert (status, code) == (422, "invalid_parameter")
    assert [item.name for item in queried(operation) if item.name not in message] == []


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("/v1/events?kind=nonsense", "publish, promote"),
        ("/v1/problems?code=nonsense", "bytes_changed"),
        ("/v1/devices?component=service&version=1", "SemVer"),
        ("/v1/failures?component=Service", "in lower case"),
        ("/v1/packages?version=1.2", "SemVer"),
        ("/v1/versions?org_id=acme", "UUID"),
        (f"/v1/devices/{DEVICE}/explain?limit=3", "expected none"),
    ],
)
def test_a_refusal_says_what_is_expected(server: RunningServer, query: str, expected: str) -> None:
    status, _, message = refusal(server, query)
    assert status == 422
    assert expected in message


@pytest.mark.parametrize("kind", ["publish", "problem_appeared", "token_added"])
def test_what_has_not_happened_yet_is_an_empty_list(server: RunningServer, kind: str) -> None:
    answer = server.get(f"/v1/events?kind={kind}&subject={quote('nobody ever')}")
    assert (answer.status, answer.json()["events"]) == (200, [])


def test_an_order_takes_no_parameters(server: RunningServer) -> None:
    """``?path=a`` must not be taken for an order about a part of the tree."""
    answer = server.request("POST", "/v1/rescan?path=a")
    assert (answer.status, answer.json()["error_code"]) == (422, "invalid_parameter")
