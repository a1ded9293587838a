"""Users, keys and sessions in SQL databases."""
