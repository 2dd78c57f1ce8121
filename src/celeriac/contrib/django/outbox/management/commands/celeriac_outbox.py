"""``manage.py celeriac_outbox``: send what stayed in the outbox, without a worker."""

from __future__ import annotations

import time
from typing import Any

from django.core.management.base import BaseCommand

from celeriac.cli.locate import locate
from celeriac.contrib.django.management.commands.celery import project_app
from celeriac.contrib.django.outbox.models import rows
from celeriac.contrib.django.outbox.relay import Relay


class Command(BaseCommand):  # type: ignore[misc]  # Django ships no types
    """Sweeps the outbox once, or every so often."""

    help = "Send what stayed in the outbox. Workers do the same; this is for where there are none."

    def add_arguments(self, parser: Any) -> None:  # Any: an ArgumentParser
        """Declare the options."""
        parser.add_argument("-A", "--app", help="the app, as for `celery -A`; the default app otherwise")
        parser.add_argument("--every", type=float, metavar="SECONDS", help="go on, once in so many seconds")
        parser.add_argument(
            "--everything",
            action="store_true",
            help="also what may be on its way just now; for when nothing is",
        )

    def handle(self, *args: Any, **options: Any) -> None:  # Any: Django's open form
        """Sweep."""
        app = locate(options["app"]) if options["app"] else project_app()
        relay = Relay(app)
        while True:
            swept = relay.sweep(everything=options["everything"])
            waiting = rows().count()
            self.stdout.write(f"{swept.sent} sent, {swept.failed} failed, {waiting} in the outbox")
            if options["every"] is None:
                return
            time.sleep(options["every"])
