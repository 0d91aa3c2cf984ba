"""Benchmarks and comparisons: each module is a command, run from a checkout as `python -m bench.NAME`."""
