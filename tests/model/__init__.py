"""A model checker for the store: its shipped operations over a small Redis, in every order."""
