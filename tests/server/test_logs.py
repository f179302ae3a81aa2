"""The server's log: one JSON object per line, whatever is in it."""

from __future__ import annotations

import json
import logging

from repo_server.telemetry.logs import JsonFormatter


def test_a_line_is_json_also_with_a_name_that_is_no_text() -> None:
    record = logging.makeLogRecord({"msg": "watching %s", "args": ("/tree/\udcff",), "levelname": "INFO", "path": b"x"})
    line = JsonFormatter({"worker": 1}).format(record)
    assert line.isascii()
    fields = json.loads(line)
    assert (fields["message"], fields["worker"], fields["path"]) == ("watching /tree/\udcff", 1, "b'x'")
