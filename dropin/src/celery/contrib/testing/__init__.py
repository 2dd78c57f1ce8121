"""What tests of Celery programs are made with."""
