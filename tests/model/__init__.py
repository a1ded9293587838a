"""An exhaustive model of the store.

The shipped operations over a Redis of a few keys, in every interleaving.
"""
