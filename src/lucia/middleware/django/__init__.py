"""Django: the middleware behind ``request.lucia``, ``login_required`` and the ready routes.

::

    MIDDLEWARE += ["lucia.middleware.django.LuciaMiddleware"]
    LUCIA = {"AUTH": "accounts.auth.auth"}
    LOGIN_URL = "lucia:log_in"

    urlpatterns += [path("auth/", include("lucia.middleware.django.urls"))]

"lucia.adapters.django" in ``INSTALLED_APPS`` adds the commands of ``manage.py`` and checks the
setting when Django starts. :class:`~lucia.middleware.django.conf.Configuration` lists its members.
"""

try:
    from lucia.middleware.django.access import LoginRequiredMixin, login_required
    from lucia.middleware.django.middleware import LuciaMiddleware
    from lucia.middleware.django.request import DjangoAuthRequest, LuciaHttpRequest
except ImportError as error:
    if (error.name or "").partition(".")[0] not in {"django", "asgiref"}:
        raise
    raise ImportError(
        'lucia.middleware.django needs Django 5.2 or newer: pip install "lucia-auth[django]"'
    ) from error

__all__ = [
    "DjangoAuthRequest",
    "LoginRequiredMixin",
    "LuciaHttpRequest",
    "LuciaMiddleware",
    "login_required",
]
