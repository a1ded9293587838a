"""The ready routes, without a framework."""
