"""The app of django-celery, which projects of Celery 3 have in INSTALLED_APPS.

It brings ``manage.py celery``, as `celeriac.contrib.django` does.
"""

from __future__ import annotations


def setup_loader() -> None:
    """Do nothing: settings are taken from the Django project without it."""
