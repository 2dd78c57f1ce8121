"""The outbox."""

from __future__ import annotations

from typing import Any

from django.db import migrations, models


class Migration(migrations.Migration):  # type: ignore[misc]  # Django ships no types
    """Makes the table."""

    initial: bool = True
    dependencies: tuple[Any, ...] = ()  # Any: Django's
    operations: tuple[Any, ...] = (  # Any: Django's
        migrations.CreateModel(
            name="OutboxMessage",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        primary_key=True, serialize=False, auto_created=True, verbose_name="ID"
                    ),
                ),
                ("app", models.CharField(max_length=255, editable=False)),
                ("task", models.CharField(max_length=255, editable=False)),
                ("task_id", models.CharField(max_length=255, editable=False)),
                ("message", models.BinaryField()),
                ("written", models.DateTimeField(auto_now_add=True)),
                ("due", models.DateTimeField(db_index=True)),
                ("attempts", models.PositiveIntegerField(default=0)),
                ("error", models.TextField(blank=True)),
            ],
            options={"ordering": ("id",), "verbose_name": "message"},
        ),
    )
