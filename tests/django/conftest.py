"""Sets up Django before the tests here import its models."""

import tests.support.django_site  # noqa: F401
