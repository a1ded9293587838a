"""The near-cache of session records."""
