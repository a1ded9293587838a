"""Users and keys in MongoDB, by PyMongo; sessions are stored elsewhere, such as in Redis."""

try:
    from lucia._async.stores.mongodb import AsyncMongoUserAdapter
    from lucia._sync.stores.mongodb import MongoUserAdapter
except ImportError as error:
    if (error.name or "").partition(".")[0] not in ("pymongo", "bson"):
        raise
    raise ImportError(
        'the MongoDB adapters need PyMongo: pip install "lucia-auth[mongodb]"'
    ) from error

__all__ = ["AsyncMongoUserAdapter", "MongoUserAdapter"]
