"""Calls that type checkers have to refuse: every line with the word "error" behind it, and no other."""

from __future__ import annotations

from celeriac import Celeriac, Task

app = Celeriac("proj")


@app.task
def add(x: int, y: int = 0) -> int:
    return x + y


@app.task(bind=True)
def bound(self: Task, name: str) -> str:
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
length = fetch.apply_async(("u",)).get()  # error
length = fetch("u")  # error
number = add.apply_async((1,))  # error
text = add.apply_async((1,)).get()  # error
add.apply_async(1)  # error
add.apply_async((1,), [2])  # error
add.si("a")  # error
add.si()  # error
add.delay(1)
bound.delay("x")
fetch.delay("u")
add.apply_async((1,), {"y": 2})
add.si(1)


async def client() -> None:
    await add.adelay("a")  # error
    text: str = await add.delay(1)  # error
    await add.adelay(1)
    print(text)
