"""Holds Python's cycle collector back while many lasting objects are made: it would go through all of them, in vain."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def paused(*, lasting: bool = False) -> Iterator[None]:
    """Collect nothing for a while; a warm start takes two thirds of the time.

    ``lasting``: what is made stays as long as the process, and is never gone through at all.
    """
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if lasting:
            gc.freeze()
        if was:
            gc.enable()


@contextlib.contextmanager
def resumed() -> Iterator[None]:
    """Collect as always within a pause: while waiting, others go on working."""
    was = gc.isenabled()
    gc.enable()
    try:
        yield
    finally:
        if not was:
            gc.disable()
