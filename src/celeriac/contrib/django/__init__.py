"""Django app: ``manage.py celery …`` runs the command line with the project's settings."""
