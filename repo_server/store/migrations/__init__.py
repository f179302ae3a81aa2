"""Migrations, run by ``repo_server.store.migrate``; they only go forward."""
