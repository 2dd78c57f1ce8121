"""What the worker does."""

from celery import shared_task
from django.conf import settings
from django.core.mail import send_mail
from orders.models import Order


@shared_task(autoretry_for=(OSError,), retry_backoff=True, max_retries=8)
def confirm(order_id: int) -> None:
    """Send the mail that confirms an order; again when the mail server is away."""
    order = Order.objects.get(pk=order_id)
    if order.confirmed:
        return  # the task ran before, and its worker died before it could say so
    send_mail(f"Your order of {order.article}", "It is on its way.", None, [order.email])
    Order.objects.filter(pk=order_id).update(confirmed=True)


@shared_task
def report() -> None:
    """Tell the shop how many orders it has."""
    send_mail(f"Orders: {Order.objects.count()}", "Good morning.", None, [settings.DEFAULT_FROM_EMAIL])
