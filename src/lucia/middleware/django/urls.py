"""The URLs of the ready routes: ``path("auth/", include("lucia.middleware.django.urls"))``.

Their names are ``lucia:sign_up``, ``log_in``, ``log_out``, ``me``, ``devices``, ``revoke_device``,
``revoke_others``, ``change_password``, ``token`` and ``renew_token``.
"""

from typing import Final

from lucia.middleware.django.views import account_urls

__all__ = ["app_name", "urlpatterns"]

app_name: Final = "lucia"
urlpatterns: Final = account_urls()
