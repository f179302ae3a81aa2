"""``python -m repo_server`` and the ``repo-server`` script."""

from repo_server.cli import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
