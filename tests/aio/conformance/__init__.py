"""The conformance suites, run against the library's adapters and against broken ones."""
