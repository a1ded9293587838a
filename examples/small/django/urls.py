# mysite/urls.py
from django.contrib import admin
from django.urls import include, path

from accounts import views

urlpatterns = [
    path("admin/", admin.site.urls),
    path("auth/", include("lucia.middleware.django.urls")),
    path("", views.home),
]
