"""What Celery's messages, results, events and commands look like in bytes; pure functions both ways."""
