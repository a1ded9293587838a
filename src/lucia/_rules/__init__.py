"""Every decision, as plain functions: no I/O, no await, and the clock and the randomness are arguments."""
