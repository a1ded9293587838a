"""The Redis session store without I/O: keys, records, scripts, and operations as generators.

The drivers in :mod:`lucia._async.stores.redis` and its sync twin run the operations, and
:mod:`lucia._redis.doctor` examines a whole store.
"""
