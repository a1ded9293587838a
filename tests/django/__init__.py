"""Tests of the adapters for Django's ORM."""
