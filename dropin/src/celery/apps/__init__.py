"""Celery's names for what the commands run."""
