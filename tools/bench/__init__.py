"""Benchmarks: each prints a ratio to a named baseline measured in the same run (design §9)."""
