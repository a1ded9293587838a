"""Adapters of stores for users and sessions. Each module needs the library it is named after."""
