"""Sessions: their rules, records of logins, and what a process remembers of renewals."""
