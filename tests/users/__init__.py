"""Users and the cache of users."""
