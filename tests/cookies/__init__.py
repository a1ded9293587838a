"""Tests of the session cookie and the origin check."""
