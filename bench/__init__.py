"""Benchmarks of this library and of others, measured side by side in one run.

See ``scripts/bench --help`` and ``docs/benchmarks.md``.
"""
