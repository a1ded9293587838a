"""Keys, by which users log in."""
