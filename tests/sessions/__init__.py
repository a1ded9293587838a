"""Tests of sessions: their rules, caps on logins, and remembered renewals."""
