"""Lets a request in or not, by its credentials (design §5)."""

from __future__ import annotations

from dataclasses import dataclass

from repo_server.access.auth import KeyFile, Role
from repo_server.access.limits import Limits
from repo_server.core.wire import SECRET_HEADER
from repo_server.web.http import Call, HttpError

_SECRET = SECRET_HEADER.lower().encode()


@dataclass(frozen=True, slots=True)
class Guard:
    """Checks agents' secrets and operators' tokens; without a secrets file everybody is let in."""

    secrets: KeyFile | None
    tokens: KeyFile
    limits: Limits
    public_tree: bool = False

    def agent(self, call: Call) -> str | None:
        """Return the id of the agent's secret; raise ``HttpError`` 401 (NFR-SRV-010)."""
        if self.secrets is None:
            return None
        self.limits.listen(call.address, call.began)
        presented = call.header(_SECRET)
        name = None if presented is None else self.secrets.keys.match(presented)
        if name is None:
            self._failed(call)
            what = "is missing" if presented is None else "is not one of the active secrets"
            # RFC 9110, 15.5.2: a 401 names a way in.
            challenge = f'{SECRET_HEADER} realm="repo-server"'
            raise HttpError(401, "unauthorized", f"the header {SECRET_HEADER} {what}", {"www-authenticate": challenge})
        call.auth = "success"
        call.who = f"secret:{name}"
        self.limits.succeeded(call.address)
        self.limits.secret(name, call.began)
        return name

    def _failed(self, call: Call) -> None:
        call.auth = "failure"
        self.limits.failed(call.address, call.began)

    def tree_reader(self, call: Call) -> None:
        """Let an agent in, or anybody if the tree is public."""
        if not self.public_tree:
            self.agent(call)

    def operator(self, call: Call, needed: Role = Role.READ) -> str | None:
        """Return the name of the operator's token; raise ``HttpError`` 401, or 403 if its role does not suffice."""
        if self.secrets is None:
            return None
        self.limits.listen(call.address, call.began)
        kind, _, presented = (call.header(b"authorization") or "").partition(" ")
        keys = self.tokens.keys
        name = keys.match(presented.strip()) if kind.lower() == "bearer" else None
        if name is None:
            self._failed(call)
            message = (
                "an operator's token is needed: Authorization: Bearer …; make one with: repo-server token add NAME"
            )
            raise HttpError(401, "unauthorized", message, {"www-authenticate": 'Bearer realm="repo-server"'})
        call.auth = "success"
        call.who = f"token:{name}"
        self.limits.succeeded(call.address)
        if not keys.roles[name].covers(needed):
            raise HttpError(
                403, "forbidden", f"the token {name!r} has the role {keys.roles[name]}; this needs {needed}"
            )
        return name
