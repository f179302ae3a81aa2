"""``verify``: installed files beside the lists of their packages (design §8)."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from simulators.repository import Repository
from support.components import Package
from support.endpoints import Endpoint, endpoint_in


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    with Repository(tmp_path / "downloads") as repository:
        yield repository


@pytest.fixture
def endpoint(tmp_path: Path, repository: Repository) -> Iterator[Endpoint]:
    publish(repository, "1.0.0")
    with endpoint_in(tmp_path / "endpoint") as endpoint:
        endpoint.install(repository, "service")
        yield endpoint


def publish(repository: Repository, version: str, **more: Any) -> None:
    package = Package("service", version, top='preserve = ["etc/*.conf", "data/**"]', **more)
    package.files = {"etc/service.conf": "port = 1\n", "lib/one": "1", **package.files}
    repository.publish(package.name, package.build())


def found(endpoint: Endpoint, expect: int = 1) -> dict[str, Any]:
    answer = json.loads(endpoint.run("verify", "--json", expect=expect).stdout)
    (component,) = answer["components"]
    assert answer["same"] is component["same"] is (expect == 0)
    return dict(component)


def test_what_was_just_installed_is_as_its_package_has_it(endpoint: Endpoint) -> None:
    assert "service 1.0.0: as its package has it, 1 preserved files not compared" in endpoint.run("verify").stdout
    assert found(endpoint, expect=0)["preserved"] == ["etc/service.conf"]


def test_files_that_are_missing_changed_or_extra_are_named(endpoint: Endpoint) -> None:
    live = endpoint.paths.install("service")
    (live / "VERSION").unlink()
    (live / "lib" / "one").write_text("2")
    (live / "bin" / "check").chmod(0o700)
    (live / "lib" / "two").write_text("")
    (live / "lib" / "link").symlink_to("one")
    (live / "empty").mkdir()
    component = found(endpoint)
    assert component["missing"] == ["VERSION"]
    assert component["extra"] == ["empty", "lib/link", "lib/two"]
    assert component["changed"] == [
        {"path": "bin/check", "why": "has mode 0700, expected 0755"},
        {"path": "lib/one", "why": "has other content"},
    ]
    said = endpoint.run("verify", "service", expect=1).stdout
    assert "reinstall service" in said
    assert "missing: VERSION" in said


def test_a_link_in_place_of_a_file_is_a_change_and_is_not_followed(endpoint: Endpoint) -> None:
    one = endpoint.paths.install("service") / "lib" / "one"
    copy = endpoint.root / "copy"
    one.rename(copy)
    one.symlink_to(copy)
    assert found(endpoint)["changed"] == [{"path": "lib/one", "why": "is a link, expected a file"}]


def test_preserved_files_are_listed_and_not_compared(endpoint: Endpoint) -> None:
    """L42."""
    live = endpoint.paths.install("service")
    (live / "etc" / "service.conf").write_text("port = 2\n")
    (live / "data").mkdir()
    (live / "data" / "mine").write_text("mine")
    assert found(endpoint, expect=0)["preserved"] == ["data/mine", "etc/service.conf"]


def test_the_list_goes_with_the_version_that_is_installed(endpoint: Endpoint, repository: Repository) -> None:
    publish(repository, "1.1.0", files={"lib/new": "new"})
    endpoint.once()
    assert found(endpoint, expect=0)["version"] == "1.1.0"
    publish(repository, "1.2.0", check="#!/bin/sh\nexit 1\n",
            health='kind = "command"\ncommand = ["bin/check"]\ntimeout_seconds = 0.1')  # fmt: skip
    endpoint.once(expect=1)
    assert found(endpoint, expect=0)["version"] == "1.1.0"
    assert len(list((endpoint.paths.state / "files").iterdir())) == 1


def test_a_component_without_a_list_is_not_said_to_be_right(endpoint: Endpoint) -> None:
    (only,) = (endpoint.paths.state / "files").iterdir()
    only.write_bytes(b"\0" * 100)
    assert "reinstall" in found(endpoint)["failure"]
    only.unlink()
    assert "reinstall" in found(endpoint)["failure"]


def test_what_is_not_installed_cannot_be_verified(endpoint: Endpoint) -> None:
    assert "there is: service" in endpoint.run("verify", "probe", expect=1).stderr


def test_nothing_is_compared_while_an_update_runs(endpoint: Endpoint) -> None:
    with endpoint.paths.lock.open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        endpoint.run("verify", expect=4)
