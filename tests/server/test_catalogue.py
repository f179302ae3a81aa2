"""``GET /v1/packages`` and ``/v1/problems``: filters, pages, and what a client that asks again is told."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any

import pytest
from support.server import RunningServer
from support.serving import SERVICE

from repo_server.core.model import Problem
from repo_server.routes.catalogue import _problem_page
from repo_server.web.query import Query

ALL = ["probe-3.0.0", "service-1.1.0", "service-1.2.3", "service-1.3.0", "ui-2.0.0"]


def listed(server: RunningServer, query: str = "") -> list[str]:
    response = server.get(f"/v1/packages{query}")
    assert response.status == 200, response.data
    return [f"{item['component_name']}-{item['version']}" for item in response.json()["packages"]]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", ALL),
        ("?component=service", ["service-1.1.0", "service-1.2.3", "service-1.3.0"]),
        ("?component=service&channel=beta", ["service-1.3.0"]),
        ("?active=false", ["service-1.1.0"]),
        ("?active=true&component=service", ["service-1.2.3", "service-1.3.0"]),
        ("?version=2.0.0", ["ui-2.0.0"]),
        ("?os=windows", []),
        ("?os=linux&arch=amd64", ALL),
        ("?after=service-linux-amd64-1.1.0&limit=2", ["service-1.2.3", "service-1.3.0"]),
        ("?after=service-linux-amd64-1.2.0-rc.zip", ["service-1.2.3", "service-1.3.0", "ui-2.0.0"]),
    ],
)
def test_releases_are_filtered(server: RunningServer, query: str, expected: list[str]) -> None:
    assert listed(server, query) == expected


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("limit=0", "invalid_limit"),
        ("limit=1001", "invalid_limit"),
        ("limit=", "invalid_limit"),
        ("limit=%D9%A1", "invalid_limit"),
        ("after=nonsense", "invalid_parameter"),
        ("after=", "invalid_parameter"),
        ("channel=gamma", "invalid_parameter"),
        ("active=yes", "invalid_parameter"),
        ("chanel=beta", "invalid_parameter"),
        ("version=1.2.3&version=1.3.0", "invalid_parameter"),
    ],
)
def test_a_parameter_that_means_nothing_is_refused(server: RunningServer, query: str, code: str) -> None:
    """A filter that is spelled wrong must not look like one that everything passes."""
    response = server.get(f"/v1/packages?{query}")
    assert (response.status, response.json()["error_code"]) == (422, code)


@pytest.mark.parametrize("path", ["/v1/devices", "/v1/problems"])
def test_every_list_refuses_what_it_does_not_know(server: RunningServer, path: str) -> None:
    response = server.get(f"{path}?chanel=beta")
    assert (response.status, response.json()["error_code"]) == (422, "invalid_parameter")


def test_pages_follow_one_another_without_gap_or_repetition(server: RunningServer) -> None:
    found: list[str] = []
    query = "?limit=2"
    for _ in range(len(ALL)):
        page: dict[str, Any] = server.get(f"/v1/packages{query}").json()
        found += [f"{item['component_name']}-{item['version']}" for item in page["packages"]]
        if page["next"] is None:
            break
        query = f"?limit=2&after={page['next']}"
    assert found == ALL


def test_a_release_has_the_same_id_wherever_it_is_listed(server: RunningServer) -> None:
    """It is the primary key of the source schema's table."""
    one, again = (server.get("/v1/packages?version=1.2.3").json()["packages"][0] for _ in range(2))
    assert uuid.UUID(one["package_id"]).version == 5
    assert one == again
    assert one["path"] == SERVICE


@pytest.mark.parametrize("path", ["/v1/packages", "/v1/packages?limit=2", "/v1/problems"])
def test_who_asks_again_with_what_he_has_is_told_that_nothing_changed(server: RunningServer, path: str) -> None:
    first = server.get(path)
    etag = first.headers["etag"]
    again = server.get(path, {"if-none-match": f'"other", W/{etag}'})
    assert (again.status, again.data, again.headers["etag"]) == (304, b"", etag)
    assert server.get(path, {"if-none-match": '"other"'}).data == first.data
    head = server.request("HEAD", path)
    assert (head.status, head.data, head.headers["etag"]) == (200, b"", etag)
    assert "no-cache" in first.headers["cache-control"]


def paths_of_problems(server: RunningServer, query: str = "") -> tuple[list[str], str | None]:
    page = server.get(f"/v1/problems{query}").json()
    return sorted(item["path"] for item in page["problems"] + page["pending"]), page["next"]


def test_problems_come_in_pages_and_by_reason(server: RunningServer) -> None:
    """A folder of somebody's photographs in the tree makes no answer of megabytes."""
    pending = "service-linux-amd64-9.9.9.tar.gz"
    assert paths_of_problems(server) == (["holiday.jpg", pending], None)
    assert paths_of_problems(server, "?limit=1") == (["holiday.jpg"], "holiday.jpg")
    assert paths_of_problems(server, "?limit=1&after=holiday.jpg") == ([pending], None)
    assert paths_of_problems(server, "?code=unrecognised_name") == (["holiday.jpg"], None)
    assert paths_of_problems(server, "?state=pending") == ([pending], None)
    assert server.get("/v1/problems?state=fine").status == 422


def test_the_problems_of_one_file_are_on_one_page() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    problems = [Problem(path, code, "", now) for path, code in (("b", "1"), ("a", "1"), ("b", "2"), ("c", "1"))]
    first, following = _problem_page(problems, Query({"limit": "2"}))
    assert ([(item.path, item.code) for item in first], following) == ([("a", "1"), ("b", "1"), ("b", "2")], "b")
    rest, following = _problem_page(problems, Query({"limit": "2", "after": "b"}))
    assert ([item.path for item in rest], following) == (["c"], None)
