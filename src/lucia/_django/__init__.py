"""The adapters for Django's ORM. What users import is in :mod:`lucia.adapters.django`."""
