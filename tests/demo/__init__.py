"""Tests of the demo: where its Redis comes from, its pages, and its check."""
