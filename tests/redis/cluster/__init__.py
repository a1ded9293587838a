"""Clusters that change while they are used."""
