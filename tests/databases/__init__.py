"""Tests of the SQLAlchemy adapters' databases."""
