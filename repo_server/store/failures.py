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

MAX_VERSIONS = 50
"""Of one signature; devices say what they like, and the answer must not grow with that."""

# Found through the partial index on failed attempts; the pattern is made when a record is written.
_SIGNATURES = """
WITH log AS MATERIALIZED (
    SELECT component_name AS component, coalesce(error_code, '') AS error_code,
        coalesce(error_pattern, left(error_message, 200), '') AS pattern, requested_version AS version, device_id,
        received_at, error_message
    FROM agent_update_status_log
    WHERE status = 'failed' AND received_at >= %(since)s
        AND (%(component)s::text IS NULL OR component_name = %(component)s)
        AND (%(version)s::text IS NULL OR requested_version = %(version)s)
), most AS (
    SELECT component, error_code, pattern, count(*) AS attempts, count(DISTINCT device_id) AS devices,
        min(received_at) AS first_at, max(received_at) AS last_at, min(error_message) AS example
    FROM log GROUP BY 1, 2, 3 ORDER BY 5 DESC, 4 DESC, 3, 1, 2 LIMIT %(limit)s
), by_version AS (
    SELECT component, error_code, pattern, log.version, count(*) AS times,
        row_number() OVER (PARTITION BY component, error_code, pattern ORDER BY count(*) DESC, log.version) AS place
    FROM log JOIN most USING (component, error_code, pattern) GROUP BY 1, 2, 3, 4
)
SELECT component, nullif(error_code, '') AS error_code, nullif(pattern, '') AS pattern, attempts, devices, first_at,
    last_at, example, by_version.version, times
FROM most JOIN by_version USING (component, error_code, pattern) WHERE place <= %(versions)s
ORDER BY devices DESC, attempts DESC, pattern, component, error_code, place
"""
# First by device, then over them: counting distinct devices would sort every attempt.
_VERSIONS = """
SELECT component, version, sum(attempts)::bigint AS attempts, sum(succeeded)::bigint AS succeeded,
    sum(failed)::bigint AS failed, count(*) AS devices, count(*) FILTER (WHERE failed > 0) AS devices_failed
FROM (
    SELECT component_name AS component, requested_version AS version, device_id, count(*) AS attempts,
        count(*) FILTER (WHERE status = 'success') AS succeeded, count(*) FILTER (WHERE status = 'failed') AS failed
    FROM agent_update_status_log
    WHERE received_at >= %(since)s
        AND (%(component)s::text IS NULL OR component_name = %(component)s)
        AND (%(version)s::text IS NULL OR requested_version = %(version)s)
    GROUP BY 1, 2, 3
) AS of_devices GROUP BY 1, 2 ORDER BY 7 DESC, 1, 2 LIMIT %(limit)s
"""


@dataclass(frozen=True, slots=True)
class FailureReader:
    """Reads the update log; every method raises ``DatabaseAway``."""

    database: Database

    async def failures(
        self, since: datetime, component: str | None, version: str | None, limit: int
    ) -> dict[str, list[dict[str, Any]]]:
        """Return the signatures that most devices have, and the versions that fail on most, since an instant."""
        values = {
            "since": since, "component": component, "version": version, "limit": limit, "versions": MAX_VERSIONS,
        }  # fmt: skip

        async def read(connection: Connection) -> dict[str, list[dict[str, Any]]]:
            async with connection.cursor(row_factory=dict_row) as cursor:
                rows = await (await cursor.execute(_SIGNATURES, values)).fetchall()
                versions = await (await cursor.execute(_VERSIONS, values)).fetchall()
            return {"signatures": _signatures(rows), "versions": versions}

        return await self.database.ask(read, _SECONDS)


def _signatures(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Put each signature's versions, of which each has a row, into one; the order stays."""
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in rows:
        version, times = row.pop("version"), row.pop("times")
        signature = found.setdefault((row["component"], row["error_code"], row["pattern"]), row | {"versions": {}})
        signature["versions"][version] = times
    return list(found.values())
