"""Every construct that differs between sync and async code, written by hand.

Each ``AsyncX`` has an ``X`` with the same methods beside it (``aclose`` becomes ``close``), which
is the name that generated code uses.
"""
