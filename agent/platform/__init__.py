"""Everything that differs between operating systems, and the only place that starts processes.

Kept empty of imports: the daemon's parent process must stay small.
"""
