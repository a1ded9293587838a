"""An exhaustive model of the store: the shipped operations over a Redis of a few keys, in every interleaving."""
