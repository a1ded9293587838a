"""What is kept in the memory of one process: failed log-ins, renewals, users."""
