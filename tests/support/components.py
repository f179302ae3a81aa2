"""Builds real packages of small real programs, for tests of the agent."""

from __future__ import annotations

import io
import sys
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field

from agent.platform.detect import this_platform

PLATFORM = this_platform()

SLEEPER = """\
#!/bin/sh
# Component {component} {version}.
while :; do sleep 3600 & wait $!; done
"""

DEAF = """\
#!/bin/sh
trap '' TERM
while :; do sleep 1; done
"""

WEB = """\
#!{python} -IS
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response({answer})
        self.end_headers()
        self.wfile.write(b"{version}")
    def log_message(self, *args):
        pass
http.server.HTTPServer(("127.0.0.1", {port}), Handler).serve_forever()
"""


@dataclass
class Package:
    """A package under construction. By default: a program that sleeps, and a health command that succeeds."""

    component: str
    version: str
    program: str = SLEEPER
    service: str = 'kind = "process"\ncommand = ["bin/serve"]\nstop_timeout_seconds = 5'
    health: str = 'kind = "command"\ncommand = ["bin/check"]\ntimeout_seconds = 10'
    check: str = "#!/bin/sh\nexit 0\n"
    top: str = ""
    """Lines of package.toml outside tables, such as preserve."""
    hooks: str = ""
    hook_files: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str | bytes] = field(default_factory=dict)
    """More payload."""

    @property
    def name(self) -> str:
        return f"{self.component}-{PLATFORM}-{self.version}.tar.gz"

    @property
    def manifest(self) -> str:
        hooks = f"\n[hooks]\n{self.hooks}\n" if self.hooks else ""
        return (
            f'component = "{self.component}"\nversion = "{self.version}"\n'
            f'os = "{PLATFORM.os}"\narch = "{PLATFORM.arch}"\npayload = "files"\n{self.top}\n'
            f"\n[service]\n{self.service}\n\n[health]\n{self.health}\n{hooks}"
        )

    def payload(self) -> dict[str, bytes]:
        """Return what the install folder holds: relative path → content."""
        program = self.program.replace("{component}", self.component).replace("{version}", self.version)
        texts = {"bin/serve": program, "bin/check": self.check, "VERSION": self.version, **self.files}
        return {path: text.encode() if isinstance(text, str) else text for path, text in texts.items()}

    def build(self) -> bytes:
        """Return the archive."""
        target = io.BytesIO()
        with tarfile.open(fileobj=target, mode="w:gz") as archive:
            _add(archive, "package.toml", self.manifest.encode(), 0o644)
            for path, text in self.hook_files.items():
                _add(archive, path, text.encode(), 0o755)
            for path, content in self.payload().items():
                _add(archive, f"files/{path}", content, 0o755 if path.startswith("bin/") else 0o644)
        return target.getvalue()


def web(component: str, version: str, port: int, answer: int = 200, timeout: float = 20) -> Package:
    """Return a package of a web server that answers with its version, checked over HTTP."""
    program = WEB.format(python=sys.executable, answer=answer, version=version, port=port)
    health = f'kind = "http"\nurl = "http://127.0.0.1:{port}/"\ntimeout_seconds = {timeout}'
    return Package(component, version, program=program, health=health)


def _add(archive: tarfile.TarFile, name: str, content: bytes, mode: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    archive.addfile(entry, io.BytesIO(content))
