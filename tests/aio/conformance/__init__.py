"""The suites for adapters, and adapters that they have to refuse."""
