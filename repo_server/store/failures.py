"""What goes wrong in the fleet: failed attempts by signature, and attempts by version, for operators (promise 3).

A signature is the component, the error's code and its message without what differs from device to device.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg.rows import dict_row

from repo_server.store.database import Connection, Database

_SECONDS = 30.0
"""Questions about the whole fleet take longer."""

# Found through the partial index on failed attempts; the pattern is made when a record is written.
_SIGNATURES = """
SELECT component_name AS component, error_code, pattern, requested_version AS version,
    grouping(requested_version) = 1 AS whole, count(*) AS attempts, count(DISTINCT device_id) AS devices,
    min(received_at) AS first_at, max(received_at) AS last_at, min(error_message) AS example
FROM (SELECT *, coalesce(error_pattern, left(error_message, 200)) AS pattern FROM agent_update_status_log) AS log
WHERE status = 'failed' AND received_at >= %(since)s
    AND (%(component)s::text IS NULL OR component_name = %(component)s)
    AND (%(version)s::text IS NULL OR requested_version = %(version)s)
GROUP BY GROUPING SETS ((component_name, error_code, pattern), (component_name, error_code, pattern, requested_version))
"""
_VERSIONS = """
SELECT component_name AS component, requested_version AS version, count(*) AS attempts,
    count(*) FILTER (WHERE status = 'success') AS succeeded, count(*) FILTER (WHERE status = 'failed') AS failed,
    count(DISTINCT device_id) AS devices,
    count(DISTINCT device_id) FILTER (WHERE status = 'failed') AS devices_failed
FROM agent_update_status_log
WHERE received_at >= %(since)s
    AND (%(component)s::text IS NULL OR component_name = %(component)s)
    AND (%(version)s::text IS NULL OR requested_version = %(version)s)
GROUP BY 1, 2 ORDER BY 7 DESC, 1, 2 LIMIT %(limit)s
"""


@dataclass(frozen=True, slots=True)
class FailureReader:
    """Reads the update log; every method raises ``DatabaseAway``."""

    database: Database

    async def failures(
        self, since: datetime, component: str | None, version: str | None, limit: int
    ) -> dict[str, list[dict[str, Any]]]:
        """Return the signatures that most devices have, and the versions that fail on most, since an instant."""
        values = {"since": since, "component": component, "version": version, "limit": limit}

        async def read(connection: Connection) -> dict[str, list[dict[str, Any]]]:
            async with connection.cursor(row_factory=dict_row) as cursor:
                rows = await (await cursor.execute(_SIGNATURES, values)).fetchall()
                versions = await (await cursor.execute(_VERSIONS, values)).fetchall()
            return {"signatures": _signatures(rows)[:limit], "versions": versions}

        return await self.database.ask(read, _SECONDS)


def _signatures(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Put each signature's versions into its row; most devices first."""
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    versions: dict[tuple[Any, ...], dict[str, int]] = {}
    for row in rows:
        key = row["component"], row["error_code"], row["pattern"]
        version = row.pop("version")
        if row.pop("whole"):
            found[key] = row
        else:
            versions.setdefault(key, {})[version] = row["attempts"]
    for key, row in found.items():
        row["versions"] = dict(sorted(versions[key].items(), key=lambda item: -item[1]))
    return sorted(found.values(), key=lambda row: (-row["devices"], -row["attempts"], str(row["pattern"])))
