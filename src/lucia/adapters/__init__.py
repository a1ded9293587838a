"""Adapters: where users and sessions are stored. Each module needs the library it is named after."""
