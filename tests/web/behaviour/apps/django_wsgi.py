"""The application in Django, for servers of WSGI."""

# The settings have to be there first.
from tests.web.behaviour.apps import django_app  # isort: skip
from django.core.wsgi import get_wsgi_application

__all__ = ["app", "django_app"]

app = get_wsgi_application()
