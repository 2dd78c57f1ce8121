from __future__ import absolute_import

import os

from celery import Celery, shared_task

# set the default Django settings module for the 'celery' program.
os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'celery_demo.settings')

from django.conf import settings  # noqa
from django.core.mail import EmailMessage

app = Celery('celery_demo')

# Using a string here means the worker will not have to
# pickle the object when using Windows.
app.config_from_object('django.conf:settings')
app.autodiscover_tasks(lambda: settings.INSTALLED_APPS)


@shared_task()
def send_email():
    message = EmailMessage('Subject', 'Message', to=['jrahmonov2@gmail.com'])
    message.send()
    print('Email is sent')
