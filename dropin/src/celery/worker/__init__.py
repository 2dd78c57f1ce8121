"""Celery's names for what a worker consists of."""
