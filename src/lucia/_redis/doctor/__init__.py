"""The walk over a whole Redis store that finds damaged sessions and indexes, and repairs them."""
