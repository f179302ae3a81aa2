"""The keeping of workers, with real processes that do not do what they should."""

from __future__ import annotations

import asyncio
import socket
import sys
from asyncio.subprocess import Process
from collections.abc import Callable

import pytest

from repo_server.workers.crew import Crew, Member, pause_after
from repo_server.workers.messages import Message

MUTE = "import time; time.sleep(600)"
MISTAKEN = "raise SystemExit(2)"
DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(600)"


def crew(program: str, silent_seconds: float = 600) -> Crew:
    async def launch(_number: int, end: socket.socket) -> Process:
        return await asyncio.create_subprocess_exec(sys.executable, "-c", program, pass_fds=(end.fileno(),))

    def greet(_member: Member) -> None:
        pass

    def heard(_member: Member, _message: Message) -> None:
        pass

    return Crew(2, launch, greet, heard, silent_seconds)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 -- processes set no event
            await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    ("program", "silent", "said"), [(MUTE, 1.0, "was ended by SIGKILL"), (MISTAKEN, 600.0, "ended with code 2")]
)
def test_a_worker_that_hangs_or_ends_is_replaced_and_it_is_said_until_another_is_ready(
    program: str, silent: float, said: str
) -> None:
    async def work() -> None:
        workers = crew(program, silent)
        running = asyncio.create_task(workers.run())
        await until(lambda: workers.restarts >= 4)
        assert workers.trouble == {number: f"worker {number} {said}" for number in (0, 1)}
        workers.leave()
        await asyncio.wait_for(running, 60)
        assert workers.members == {}

    asyncio.run(work())


def test_workers_that_do_not_leave_are_killed() -> None:
    async def work() -> None:
        workers = crew(DEAF)
        running = asyncio.create_task(workers.run())
        await until(lambda: len(workers.members) == 2)
        workers.leave()
        await asyncio.sleep(0.2)
        workers.kill()
        await asyncio.wait_for(running, 60)

    asyncio.run(work())


def test_a_worker_that_fails_for_days_is_still_started_again_every_few_seconds() -> None:
    assert pause_after(1) < pause_after(2) < pause_after(100) == pause_after(100_000)
