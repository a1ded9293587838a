"""Every construct that differs between sync and async code, written by hand: each ``AsyncX`` stands beside its ``X``."""
