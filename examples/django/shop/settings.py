"""The settings: a database, a mail server, the outbox, and what is due each morning."""

import os
from pathlib import Path

from celery.schedules import crontab

BASE_DIR = Path(__file__).resolve().parent.parent

SECRET_KEY = "only for this example"
DEBUG = False
ALLOWED_HOSTS = ["localhost", "127.0.0.1"]
ROOT_URLCONF = "shop.urls"
INSTALLED_APPS = [
    "celeriac.contrib.django",  # manage.py celery
    "celeriac.contrib.django.outbox",  # delay_on_commit survives crashes and outages
    "orders",
]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": BASE_DIR / "db.sqlite3",
        "OPTIONS": {"timeout": 20, "transaction_mode": "IMMEDIATE"},
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True

EMAIL_HOST = os.environ.get("EMAIL_HOST", "localhost")
EMAIL_PORT = int(os.environ.get("EMAIL_PORT", "25"))
DEFAULT_FROM_EMAIL = "shop@example.com"

# CELERY_BROKER_URL = "redis://localhost:6379/0"  # without one, tasks queue in a file on this machine
CELERY_TASK_ACKS_LATE = True
CELERY_TIMEZONE = "Europe/Berlin"
CELERY_BEAT_SCHEDULE = {
    "each morning": {"task": "orders.tasks.report", "schedule": crontab(0, 7), "missed": "once"},
}
