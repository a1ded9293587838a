"""Tests of the package's contents, and of what importing it needs."""
