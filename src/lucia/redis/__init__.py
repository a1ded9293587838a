"""The Redis session store without its waiting: key names and records, each operation as a pure generator, and the Lua scripts."""
