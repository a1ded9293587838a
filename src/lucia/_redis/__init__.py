"""The Redis session store without its waiting: key names and records, each operation as a pure generator, and the Lua scripts.

The doctor's walk over a whole store is here too; what runs its operations is given to it.
"""
