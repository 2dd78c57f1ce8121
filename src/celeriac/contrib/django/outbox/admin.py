"""The outbox in Django's admin, to look at."""

from __future__ import annotations

from typing import Any

from django.contrib import admin

from celeriac.contrib.django.outbox.models import OutboxMessage


@admin.register(OutboxMessage)
class OutboxAdmin(admin.ModelAdmin):  # type: ignore[misc]  # Django ships no types
    """Shows what was not sent yet and why; deleting a message is giving it up."""

    list_display: tuple[str, ...] = ("task", "task_id", "written", "attempts", "error")
    list_filter: tuple[str, ...] = ("task",)
    search_fields: tuple[str, ...] = ("task_id",)
    exclude: tuple[str, ...] = ("message",)

    def has_add_permission(self, request: Any) -> bool:  # Any: Django's request
        """Refuse: messages are made by tasks."""
        return False

    def has_change_permission(self, request: Any, obj: Any = None) -> bool:  # Any: Django's request, a row
        """Refuse: they are what the tasks have made."""
        return False
