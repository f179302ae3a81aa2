"""What signals ask a process for: SIGTERM and SIGINT to leave, SIGHUP to read files again."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable

_log = logging.getLogger(__name__)


def on_signals(leave: Callable[[], None], read_again: Callable[[], None]) -> None:
    """Call these from now on, in the running event loop."""

    def told(number: signal.Signals) -> None:
        _log.info("%s: finishing what runs, then stopping", number.name)
        leave()

    def hung_up() -> None:
        _log.info("SIGHUP: opening the audit's file, reading secrets, tokens and certificate again")
        read_again()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told, number)
    loop.add_signal_handler(signal.SIGHUP, hung_up)
