"""``repotool``: what an operator types.

``cli`` is the command line (the only user of click, the clock and the environment); everything beside it decides or
acts and knows of no terminal. Errors, with their exit codes (design §11)::

    ToolError            1  it did not work; the message says what was expected, what was found, what to do
    ├── Usage            2  asked for in a wrong way
    ├── Refused          3  refused for safety: other bytes, unknown key, existing key, blocked version
    └── PartlyDone       5  some of it is done; running the same command again finishes it

``repo_server.tree.treeio.Busy`` (4) says that another operation holds the tree's lock. ``FormatError`` of the core and
``OSError`` are turned into sentences in ``cli.failures``.
"""
