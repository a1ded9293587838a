"""The benchmark: this library beside others, in one run. See ``scripts/bench --help`` and ``docs/benchmarks.md``."""
