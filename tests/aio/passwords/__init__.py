"""Passwords: hashes, the pool of hashing workers, and floods of logins."""
