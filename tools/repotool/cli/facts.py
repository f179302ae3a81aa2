"""``ls``, ``doctor``, ``explain``: what the tree offers, what it does not, and why."""

from __future__ import annotations

import click

COMMANDS: tuple[click.Command, ...] = ()
