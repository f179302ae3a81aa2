"""Every expected failure ends as one sentence on stderr and an exit code (design §11)."""

from __future__ import annotations

import errno
from typing import Any

import click

from repo_server.core.errors import FormatError
from repo_server.tree import treeio
from repotool import sentences
from repotool.errors import ToolError

FAILED, WRONG_USAGE, BUSY = 1, 2, 4


class SentenceGroup(click.Group):
    """A group of commands whose errors are sentences, never tracebacks."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; turn what it raises into a message and an exit code."""
        try:
            return super().invoke(ctx)
        except ToolError as error:
            _fail(ctx, str(error), error.exit_code)
        except UnicodeEncodeError as error:
            _fail(ctx, f"{error.object!a:.120} is not text in UTF-8; write it again", WRONG_USAGE)
        except treeio.Busy as error:
            _fail(ctx, str(error), BUSY)
        except (treeio.TreeError, FormatError) as error:
            _fail(ctx, str(error), FAILED)
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise
            _fail(ctx, sentences.of_os_error(error), FAILED)


def _fail(ctx: click.Context, message: str, code: int) -> None:
    click.echo(f"repotool: {message}", err=True)
    ctx.exit(code)
