"""Django settings of the time: Celery's own in upper case, under their old names."""

import os

SECRET_KEY = 'only for this example'
INSTALLED_APPS = ['djcelery']
USE_TZ = True

BROKER_URL = 'redis://localhost:6379/0'
CELERY_IMPORTS = ('tasks',)
CELERY_TASK_SERIALIZER = 'json'
CELERY_RESULT_BACKEND = 'redis://localhost:6379/0'

# Results can go to MongoDB instead:
#
# CELERY_RESULT_BACKEND = "mongodb"
CELERY_MONGODB_BACKEND_SETTINGS = {
    "host": "192.168.1.100",
    "port": 30000,
    "database": "mydb",
    "taskmeta_collection": "my_taskmeta_collection",
}

CELERY_ANNOTATIONS = {
    'tasks.add': {'rate_limit': '10/m'}
}

# Instead of rate limiting it, the task can be routed; then start a worker with `-Q low-priority`.
if os.environ.get('ROUTE_TO_LOW_PRIORITY'):
    CELERY_ROUTES = {
        'tasks.add': 'low-priority',
    }
