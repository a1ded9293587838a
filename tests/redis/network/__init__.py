"""Tests of sessions over broken connections and failing servers."""
