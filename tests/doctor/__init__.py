"""Tests of the command `lucia doctor`."""
