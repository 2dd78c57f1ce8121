"""Calls that type checkers have to refuse: every line with the word "error" behind it, and no other."""

from __future__ import annotations

from typing import Any

from celeriac import Celeriac, Task

app = Celeriac("proj")


@app.task
def add(x: int, y: int = 0) -> int:
    return x + y


@app.task(bind=True)
def bound(self: Task[Any, Any], name: str) -> str:
    return name


@app.task
async def fetch(url: str) -> bytes:
    return url.encode()


add.delay("a")  # error
add.delay()  # error
add.delay(1, 2, 3)  # error
add.delay(1, z=3)  # error
add("a")  # error
bound.delay(1)  # error
bound.delay("x", "y")  # error
fetch.delay(1)  # error
number: int = add.delay(1)  # error
text: str = add.delay(1).get()  # error
length: int = fetch.delay("u").get()  # error
add.delay(1)
bound.delay("x")
fetch.delay("u")


async def client() -> None:
    await add.adelay("a")  # error
    text: str = await add.delay(1)  # error
    await add.adelay(1)
    print(text)
