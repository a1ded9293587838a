"""Tests of the command `lucia doctor`, as a person runs it."""
