"""Models of users, by the kind of their primary key, and their models of keys."""

# Types of fields come from the mypy plugin of django-stubs, which is not used here.
# mypy: disable-error-code="var-annotated"

import uuid

from django.db import models

from lucia.adapters.django.base_key import AbstractKey
from lucia.adapters.django.fields import ExactCharField

__all__ = ["Editor", "EditorKey", "Guest", "GuestKey", "Member", "MemberKey", "Person", "PersonKey"]


class Person(models.Model):
    """A user with an id of text, compared byte for byte."""

    no = ExactCharField(primary_key=True, max_length=255)
    name = models.CharField(max_length=200, default="")
    town = models.TextField(null=True)
    email = models.EmailField(unique=True, null=True)
    visits = models.IntegerField(default=1)
    inviter = models.ForeignKey("self", models.PROTECT, null=True)


class PersonKey(AbstractKey):
    """A key of a person."""

    user = models.ForeignKey(Person, models.CASCADE)

    class Meta(AbstractKey.Meta):
        db_table = "key_of_person"


class Member(models.Model):
    """A user with a UUID."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    name = models.CharField(max_length=200, default="")
    town = models.TextField(default="")


class MemberKey(AbstractKey):
    """A key of a member."""

    user = models.ForeignKey(Member, models.CASCADE)


class Guest(models.Model):
    """A user with an id of text, in the database's default collation."""

    id = models.CharField(primary_key=True, max_length=255)
    name = models.CharField(max_length=200, default="")
    town = models.TextField(default="")


class GuestKey(AbstractKey):
    """A key of a guest."""

    user = models.ForeignKey(Guest, models.CASCADE)


class Editor(Person):
    """A person with a table of its own besides."""

    desk = models.CharField(max_length=200, default="")


class EditorKey(AbstractKey):
    """A key of an editor."""

    user = models.ForeignKey(Editor, models.CASCADE)
