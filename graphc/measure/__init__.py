"""Measuring: turns that subjects take, the runtimes to compare with, what the machine can do at most, pictures.

The command line and the suites in `bench/` share this; nothing here is imported by a run.
"""
