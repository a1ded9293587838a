"""The types that an application sees."""
