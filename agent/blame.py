"""Names the component whose release is at fault, where a step works on several at once.

::

    AgentError
    └── Blamed               the same code and message, and the component
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from agent.codes import Code
from agent.errors import AgentError


class Blamed(AgentError):
    """A failure that one component of a sequence is to answer for."""

    def __init__(self, component: str, code: Code, message: str) -> None:
        super().__init__(code, message)
        self.component = component


@contextlib.contextmanager
def fault_of(component: str) -> Iterator[None]:
    """Blame a component for every ``AgentError`` inside."""
    try:
        yield
    except AgentError as error:
        raise Blamed(component, error.code, error.message) from error
