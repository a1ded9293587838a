# mysite/settings.py, at the end
INSTALLED_APPS += ["lucia.adapters.django", "accounts"]
MIDDLEWARE += ["lucia.middleware.django.LuciaMiddleware"]  # below AuthenticationMiddleware
LUCIA = {"AUTH": "accounts.auth.auth", "FORBID_CROSS_SITE": True}
LUCIA_ENV = "DEV" if DEBUG else "PROD"  # "PROD" makes the cookie Secure
LOGIN_URL = "lucia:log_in"
