"""The server's log: one JSON object per line on stderr."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from datetime import UTC, datetime

import msgspec

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}


class JsonFormatter(logging.Formatter):
    """Writes a record and its ``extra`` fields as one JSON object (FR-LOG-001's form, for the server)."""

    def __init__(self, common: Mapping[str, object]) -> None:
        """Put ``common`` fields into every line."""
        super().__init__()
        self._common = dict(common)

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        fields: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage().strip(),
            **self._common,
        }
        fields.update({key: value for key, value in vars(record).items() if key not in _STANDARD})
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        try:
            return msgspec.json.encode(fields, enc_hook=str).decode()
        except UnicodeEncodeError:
            # Names of files need not be text; the line must not be lost for that.
            return json.dumps(fields, default=str)


def configure(level: str, **common: object) -> None:
    """Send everything at or above a level to stderr, with common fields; libraries' chatter only from warnings on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(common))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.captureWarnings(True)
    for library in ("alembic", "sqlalchemy", "watchfiles", "psycopg.pool", "uvicorn.error"):
        logging.getLogger(library).setLevel(logging.WARNING)
