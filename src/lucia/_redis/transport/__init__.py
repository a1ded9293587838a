"""Send commands to Redis: connections, batches, retries, topology, near-cache."""
