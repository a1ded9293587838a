"""Users and their cache."""
