"""The schema of the Django app."""
