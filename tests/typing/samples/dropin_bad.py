"""Calls of Celery's names that type checkers have to refuse: each line with "error" behind it, no other."""

from __future__ import annotations

from celery import Celery, Task, shared_task

app = Celery("proj")


@shared_task
def add(x: int, y: int = 0) -> int:
    return x + y


@shared_task(bind=True)
def mail(self: Task, to: str) -> bool:
    return bool(to)


@shared_task(queue="q")
async def fetch(url: str) -> bytes:
    return url.encode()


@app.task
def plain(x: int) -> int:
    return x


add.delay("a")  # error
add.delay()  # error
add.delay(1, z=3)  # error
add.si("a")  # error
mail.delay(1)  # error
mail.delay("me", "you")  # error
fetch.delay(1)  # error
plain.delay("a")  # error
text: str = add.delay(1).get()  # error
text = add.apply_async((1,)).get()  # error
length: int = fetch.delay("u").get()  # error
add.delay(1)
mail.delay("me")
fetch.delay("u")


async def client() -> None:
    text: str = await add.delay(1)  # error
    print(text)
