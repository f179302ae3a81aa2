"""The verb behind commandit-updater-now.socket: one request for a check, where nothing of the agent is resident."""

from __future__ import annotations

import contextlib
import os
import socket
import time

import click

from agent.cli.command import command
from agent.cli.cycles import Order, run_cycle
from agent.cli.endpoints import must_own
from agent.cli.words import tell
from agent.cli.world import the_world
from agent.codes import EXIT_BUSY, EXIT_DONE, Code
from agent.config import load_config
from agent.endpoint import put_together
from agent.errors import AgentError
from agent.lock import only_one
from agent.paths import Paths
from agent.trigger import ACCEPTED, MAX_REQUEST, PEER_SECONDS, Gate

_ASKED = "asked"
"""In the run folder: when a request was let through, by its modification time."""


@click.command(hidden=True)
@command
def answer(paths: Paths) -> int:
    """Answer the request that comes at standard input, a socket, and make the check if it is let through."""
    # Late: on Windows there is a named pipe instead, and the service listens to it.
    from agent.platform.triggersocket import caller, owners

    must_own(paths)
    paths.create()
    endpoint = put_together(paths, load_config(paths.config, os.environ, {}), the_world())
    with socket.socket(fileno=os.dup(0)) as peer, contextlib.ExitStack() as held:
        if caller(peer) not in owners():
            raise AgentError(Code.PERMISSION, "somebody else than root asks for a check; refused")
        request = _request(peer)
        busy = False
        try:
            held.enter_context(only_one(paths.lock))
        except AgentError as error:
            if error.code is not Code.BUSY:
                raise
            busy = True
        said = _let_through(paths, request, busy=busy)
        endpoint.log.info("somebody asks for a check", answer=said.decode().strip())
        with contextlib.suppress(OSError):
            peer.sendall(said)
            peer.shutdown(socket.SHUT_RDWR)
        if said != ACCEPTED:
            return EXIT_BUSY if busy else EXIT_DONE
        return tell(run_cycle(endpoint, Order("manual")))


def _request(peer: socket.socket) -> bytes:
    deadline, said = time.monotonic() + PEER_SECONDS, b""
    with contextlib.suppress(OSError):
        while b"\n" not in said and len(said) < MAX_REQUEST:
            peer.settimeout(max(0.01, deadline - time.monotonic()))
            piece = peer.recv(MAX_REQUEST)
            if not piece:
                break
            said += piece
    return said


def _let_through(paths: Paths, request: bytes, *, busy: bool) -> bytes:
    """Ask the gate, which remembers through a file; who asks when nobody listens to the lock is one of several."""
    mark, last = paths.run / _ASKED, None
    with contextlib.suppress(OSError):
        last = mark.stat().st_mtime
    said = Gate(last).answer(request, time.time(), busy=busy)
    if said == ACCEPTED:
        mark.touch(0o600)
    return said
