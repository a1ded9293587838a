"""Tests of clusters that change while they are used."""
