"""The application in Django, for servers of ASGI."""

# The settings have to be there first.
from tests.web.behaviour.apps import django_app  # isort: skip
from django.core.asgi import get_asgi_application

__all__ = ["app", "django_app"]

app = get_asgi_application()
