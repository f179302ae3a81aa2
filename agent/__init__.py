"""The agent, ``commandit-updater``: pulls what it is offered and installs it transactionally."""
