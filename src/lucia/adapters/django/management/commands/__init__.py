"""The commands of ``manage.py``: ``lucia_sessions``, ``lucia_clearsessions`` and so on."""
