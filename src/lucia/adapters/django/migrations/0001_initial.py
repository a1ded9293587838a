"""Create the table of keys."""

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models

import lucia.adapters.django.fields


class Migration(migrations.Migration):
    """Create ``lucia_key``."""

    initial = True

    dependencies = [migrations.swappable_dependency(settings.AUTH_USER_MODEL)]  # noqa: RUF012

    operations = [  # noqa: RUF012
        migrations.CreateModel(
            name="Key",
            fields=[
                (
                    "id",
                    lucia.adapters.django.fields.ExactCharField(
                        max_length=255, primary_key=True, serialize=False
                    ),
                ),
                (
                    "hashed_password",
                    lucia.adapters.django.fields.ExactCharField(
                        blank=True, max_length=255, null=True
                    ),
                ),
                ("primary_key", models.BooleanField()),
                ("expires", models.BigIntegerField(blank=True, null=True)),
                (
                    "user",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="lucia_keys",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
        ),
    ]
