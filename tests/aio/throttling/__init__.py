"""Limits on wrong passwords."""
