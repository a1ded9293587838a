"""Users, keys and sessions in a database, by SQLAlchemy 2.

``AuthTables`` describes the tables. The user adapters store users and keys, for sessions that are
stored elsewhere, such as in Redis; the other two store sessions as well.
"""

try:
    from lucia._async.stores.sqlalchemy import AsyncSQLAlchemyAdapter, AsyncSQLAlchemyUserAdapter
    from lucia._sqlalchemy.cleanup import DeletedRows
    from lucia._sqlalchemy.tables import AuthTables
    from lucia._sync.stores.sqlalchemy import SQLAlchemyAdapter, SQLAlchemyUserAdapter
except ImportError as error:
    if (error.name or "").partition(".")[0] != "sqlalchemy":
        raise
    raise ImportError(
        'the SQLAlchemy adapters need SQLAlchemy 2: pip install "lucia-auth[sqlalchemy]"'
    ) from error

__all__ = [
    "AsyncSQLAlchemyAdapter",
    "AsyncSQLAlchemyUserAdapter",
    "AuthTables",
    "DeletedRows",
    "SQLAlchemyAdapter",
    "SQLAlchemyUserAdapter",
]
