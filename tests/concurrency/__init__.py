"""Locks, event loops, threads and forks."""
