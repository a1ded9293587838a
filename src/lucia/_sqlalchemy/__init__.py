"""The tables of the SQLAlchemy adapters, and the statements on them."""
