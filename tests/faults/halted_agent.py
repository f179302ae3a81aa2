"""Runs the agent and halts it for good right after a step: ``halted_agent.py STEP COMPONENT [the agent's arguments]``.

A step that is about the whole sequence is reached with the component ``-``.
It prints ``halted`` then, so that the caller can cut the power.
"""

from __future__ import annotations

import signal
import sys

from agent.actions import SequenceActions
from agent.cli import commands
from agent.journal import Entry, Item
from agent.steps import Event


def _at(entry: Entry) -> tuple[Item, ...]:
    """Return the component that a step is about; one that is about the whole sequence is reached with ``-``."""
    return entry.sequence.items[max(entry.position, 0) :][:1]


def main() -> None:
    """Run the agent with its steps watched."""
    step, component = sys.argv[1:3]
    sys.argv[1:3] = []
    act = SequenceActions.act

    def watched(actions: SequenceActions, entry: Entry) -> Event:
        event = act(actions, entry)
        if entry.step == step and component in {"-", *(item.component for item in _at(entry))}:
            print("halted", flush=True)  # noqa: T201 -- what the caller waits for
            signal.pause()
        return event

    SequenceActions.act = watched  # type: ignore[method-assign] # a fault from outside
    commands()


if __name__ == "__main__":
    main()
