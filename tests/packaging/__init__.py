"""What the package holds, and what importing it needs."""
