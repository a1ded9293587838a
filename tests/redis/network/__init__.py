"""Tests of what happens to sessions when connections break and servers fail."""
