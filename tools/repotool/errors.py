"""The errors of repotool; the package's docstring draws the tree."""

from __future__ import annotations

from typing import ClassVar


class ToolError(Exception):
    """Something did not work; the message is a sentence for the operator."""

    exit_code: ClassVar[int] = 1


class Usage(ToolError):
    """The command contradicts itself or leaves out what cannot be guessed."""

    exit_code: ClassVar[int] = 2


class Refused(ToolError):
    """Doing it would not be safe."""

    exit_code: ClassVar[int] = 3


class PartlyDone(ToolError):
    """Some of it is done; the same command finishes the rest."""

    exit_code: ClassVar[int] = 5
