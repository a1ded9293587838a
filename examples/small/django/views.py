# accounts/views.py
from django.http import HttpResponse

from lucia.middleware.django import login_required


@login_required
def home(request):
    return HttpResponse(f"Hello {request.user.username}")
