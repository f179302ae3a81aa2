"""What the server, the agent and repotool agree on: formats and decisions.

Pure: no I/O, clock, randomness, async or logging in here (``tests/test_architecture.py`` checks it).
The formats are specified in ``repo_layout.md``; rule numbers (L1, L2, …) refer to it.
"""
