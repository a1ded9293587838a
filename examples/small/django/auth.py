# accounts/auth.py
import os

from django.conf import settings
from redis import Redis

from lucia import Auth
from lucia.adapters.django import DjangoUserAdapter
from lucia.adapters.redis import RedisSessionAdapter

redis = Redis.from_url(os.environ.get("REDIS_URL", "redis://localhost:6379"))
keys = [bytes.fromhex(os.environ["SESSION_KEY"])]  # Redis has hashes of session ids
auth = Auth(
    users=DjangoUserAdapter(),
    sessions=RedisSessionAdapter(redis, id_keys=keys),
    user_id=int,  # the database assigns the ids of django.contrib.auth's users
    env=settings.LUCIA_ENV,  # not by settings.DEBUG, which is False in tests
)
