"""Alembic's entry point; the connection comes from ``repo_server.store.migrate``."""

from alembic import context

from repo_server.store.tables import REVISION

context.configure(connection=context.config.attributes["connection"], target_metadata=None, version_table=REVISION)
with context.begin_transaction():
    context.run_migrations()
