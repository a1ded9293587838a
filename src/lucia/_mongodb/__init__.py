"""Documents in MongoDB, and each operation on them as a generator of commands."""
