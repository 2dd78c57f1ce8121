"""The smallest settings that the program needs: where to send mail, and (if any) the broker."""

import os

SECRET_KEY = 'only for this example'
INSTALLED_APPS = ['celery_demo']
USE_TZ = True

EMAIL_HOST = os.environ.get('EMAIL_HOST', 'localhost')
EMAIL_PORT = int(os.environ.get('EMAIL_PORT', '25'))
DEFAULT_FROM_EMAIL = 'celery_demo@example.com'

# BROKER_URL = 'amqp://guest:guest@localhost//'  # without one, tasks queue in a file on this machine
