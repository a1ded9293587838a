"""Sessions: requests, renewals, revocations, and adapters with five methods."""
