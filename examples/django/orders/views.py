"""What the web server does."""

from django.db import transaction
from django.http import HttpRequest, JsonResponse
from django.views.decorators.csrf import csrf_exempt
from orders.models import Order
from orders.tasks import confirm


@csrf_exempt  # this example has no pages
@transaction.atomic
def order(request: HttpRequest) -> JsonResponse:
    """Take an order; the mail is sent by a worker, and only if the order is kept."""
    new = Order.objects.create(email=request.POST["email"], article=request.POST["article"])
    confirm.delay_on_commit(new.pk)
    if new.article == "the moon":
        transaction.set_rollback(True)  # neither the order nor its mail
        return JsonResponse({"error": "not for sale"}, status=409)
    return JsonResponse({"order": new.pk}, status=202)
