"""A Celery program that type checkers have to accept, with the types that they have to see."""

from __future__ import annotations

from typing import assert_type

from celery import Celery, Task, chain, group, shared_task, signature
from celery.result import AsyncResult, EagerResult

app = Celery("proj", broker="redis://localhost")


@shared_task
def add(x: int, y: int = 0) -> int:
    return x + y


@shared_task(bind=True, max_retries=3, acks_late=True)
def mail(self: Task, to: str) -> bool:
    try:
        return bool(to)
    except OSError as exc:
        raise self.retry(exc=exc, countdown=5) from exc


@shared_task(name="fetch")
async def fetch(url: str) -> bytes:
    return url.encode()


@app.task(bind=True)
async def bound_fetch(self: Task, url: str) -> bytes:
    return url.encode()


assert_type(add(1), int)
assert_type(add.delay(1, y=2), AsyncResult[int])
assert_type(add.delay(1).get(timeout=3), int)
assert_type(add.apply_async((1,), countdown=3).get(), int)
assert_type(add.apply((1,)), EagerResult[int])
assert_type(mail.delay("me").get(), bool)
assert_type(fetch.delay("u").get(), bytes)
assert_type(bound_fetch.delay("u").get(), bytes)
chain(add.s(1), add.s(2)).apply_async()
group(add.si(n) for n in range(3))()
(add.s(1) | add.s(2)).delay()
signature("by.name", args=(1,)).delay()
app.conf.update(task_default_queue="q")
app.conf.task_serializer = "json"
app.conf.broker_url = "redis://localhost"
app.conf.result_backend = "rpc://"
app.autodiscover_tasks()


async def client() -> None:
    assert_type(await add.delay(1), int)
    assert_type(await fetch("u"), bytes)
