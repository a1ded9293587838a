"""Every decision, as plain functions without I/O: the clock and the randomness are arguments."""
