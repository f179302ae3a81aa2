"""The servers that the endpoints of a matrix ask, in a process of their own, and what they were told."""

from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from simulators.repository import Repository
from support.components import Package
from support.trees import Tree

from repo_server.core.wire import StatusRequest, StatusResponse

COMPONENTS = ("service", "probe", "ui")
OLD, NEW = "1.0.0", "1.1.0"


class Remembering(Repository):
    """Also writes down which reports came when, for those who are not in its process."""

    def __init__(self, folder: Path, told: Path) -> None:
        super().__init__(folder)
        self._told = told

    def accept(self, request: StatusRequest) -> StatusResponse:
        answer = super().accept(request)
        for record_id in {str(json.loads(bytes(raw))["record_id"]) for raw in request.records}:
            record = self.records[record_id]
            facts = {"id": record_id, "component": record.component_name, "status": str(record.status),
                     "moment": time.monotonic()}  # fmt: skip
            with (self._told / str((record.details or {})["attempt_id"])).open("a") as file:
                file.write(json.dumps(facts) + "\n")
        return answer


@dataclass
class Shop:
    """Three servers of one product: ``same`` has what is installed, ``good`` what works, ``bad`` what does not."""

    folder: Path
    urls: dict[str, str]
    process: int

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Start the servers."""
        (folder / "told").mkdir(parents=True)
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(read)
            _serve(folder, write)
        os.close(write)
        with os.fdopen(read) as said:
            return cls(folder, json.loads(said.readline()), child)

    @property
    def root_json(self) -> Path:
        return self.folder / "same" / "metadata" / "1.root.json"

    def told(self, attempt: str, until: float | None = None) -> list[dict[str, Any]]:
        """Return the reports about an attempt that a server has taken, each as often as it came."""
        try:
            lines = (self.folder / "told" / attempt).read_text().splitlines()
        except FileNotFoundError:
            return []
        facts = [json.loads(line) for line in lines]
        return [one for one in facts if until is None or one["moment"] <= until]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        os.kill(self.process, signal.SIGKILL)
        os.waitpid(self.process, 0)


def _serve(folder: Path, tell: int) -> None:
    """Serve until killed; never returns."""
    try:
        # An agent that is killed leaves a broken connection, which is nothing to tell of.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        servers = {name: Remembering(folder / name, folder / "told") for name in ("same", "good", "bad")}
        first = servers["same"].tree
        for name, server in servers.items():
            # One product has one set of keys.
            server.tree = Tree(folder / name, first.release_key, first.root_key, first.online_key)
            for component in COMPONENTS:
                _publish(server, _package(component, OLD))
                if name != "same":
                    _publish(server, _package(component, NEW, works=name == "good" or component != "ui"))
        os.write(tell, json.dumps({name: server.url for name, server in servers.items()}).encode() + b"\n")
        while True:
            signal.pause()
    finally:
        os._exit(1)


def _package(component: str, version: str, *, works: bool = True) -> Package:
    package = Package(
        component, version, top='preserve = ["data/**"]', hook_files={"hooks/it": "#!/bin/sh\nexit 0\n"},
        hooks='pre_install = ["hooks/it"]\npost_install = ["hooks/it"]', files={"share/it": f"{component} {version}\n"},
    )  # fmt: skip
    if not works:
        package.check = "#!/bin/sh\nexit 1\n"
        package.health = 'kind = "command"\ncommand = ["bin/check"]\ntimeout_seconds = 0.1'
    return package


def _publish(server: Repository, package: Package) -> None:
    server.publish(package.name, package.build())
