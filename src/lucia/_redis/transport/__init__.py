"""What carries commands to Redis servers: connections, batches, the slot map, retries, the near-cache."""
