"""Helpers of the public conformance suites."""
