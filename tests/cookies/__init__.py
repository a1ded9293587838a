"""The session cookie and the origin check."""
