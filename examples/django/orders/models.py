"""What is kept."""

from django.db import models


class Order(models.Model):
    """Somebody has ordered something."""

    email = models.EmailField()
    article = models.CharField(max_length=100)
    confirmed = models.BooleanField(default=False)
