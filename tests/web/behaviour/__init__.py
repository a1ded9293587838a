"""One behaviour over HTTP for every integration: the same cases against real servers."""
