"""State in the memory of one process: failed logins, renewals, users."""
