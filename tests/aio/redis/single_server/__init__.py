"""The Redis session adapter on one server."""
