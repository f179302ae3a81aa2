"""Alembic's entry point; the connection comes from ``repo_server.store.migrate``."""

from alembic import context

context.configure(connection=context.config.attributes["connection"], target_metadata=None)
with context.begin_transaction():
    context.run_migrations()
