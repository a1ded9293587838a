"""Tests of the near-cache."""
