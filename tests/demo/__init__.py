"""Tests of the demo: its Redis server, its pages, and its check."""
