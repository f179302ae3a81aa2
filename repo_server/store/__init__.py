"""PostgreSQL: devices and logs, nothing else; the only SQL (design §7).

::

    StoreError
    ├── DatabaseAway       it cannot be reached, or does not answer in time; try again later
    │   ├── CannotStart    the embedded PostgreSQL does not start; the message says why
    │   └── TooSlow        a question took longer than questions may; ask for less
    └── UrlInvalid         --database-url is not a connection string
"""


class StoreError(Exception):
    """Something about the database is not as it should be."""


class DatabaseAway(StoreError):
    """The database cannot be reached, or does not answer in time."""


class CannotStart(DatabaseAway):
    """The embedded PostgreSQL does not start."""


class TooSlow(DatabaseAway):
    """A question took longer than questions may; the database is there."""


class UrlInvalid(StoreError):
    """``--database-url`` is not a connection string."""
