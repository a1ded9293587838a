"""Tests of the Redis and Valkey store."""
