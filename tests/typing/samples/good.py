"""Calls that type checkers have to accept, with the types that they have to see."""

from __future__ import annotations

from typing import assert_type

from celeriac import AsyncResult, Celeriac, EagerResult, Signature, Task, chain, group

app = Celeriac("proj")


@app.task
def add(x: int, y: int = 0) -> int:
    return x + y


@app.task(bind=True, max_retries=5)
def bound(self: Task, name: str) -> str:
    return f"{self.request.id} {name}"


@app.task(queue="slow", name="other")
def optioned(x: int) -> list[int]:
    return [x]


@app.task
async def fetch(url: str) -> bytes:
    return url.encode()


@app.task(name="pause")
async def pause(seconds: float) -> None: ...


@app.task(bind=True)
async def bound_fetch(self: Task, url: str) -> bytes:
    return url.encode()


class Base(Task):
    def greet(self) -> str:
        return "hello"


@app.task(base=Base)
def based(x: int) -> int:
    return x


assert_type(add(1, 2), int)
assert_type(add.delay(1, y=2), AsyncResult[int])
assert_type(add.delay(1).get(), int)
assert_type(add.apply((1,)), EagerResult[int])
assert_type(add.apply_async((1,), {"y": 2}, countdown=3, queue="q"), AsyncResult[int])
assert_type(add.apply_async((1,)).get(timeout=3), int)
assert_type(add.AsyncResult("id").get(), int)
assert_type(add.s(1), Signature)
assert_type(add.s(), Signature)
assert_type(add.si(1), Signature)
assert_type(bound.delay("x"), AsyncResult[str])
assert_type(bound.delay(name="x").get(timeout=1), str)
assert_type(optioned.delay(1).get(), list[int])
assert_type(fetch.delay("u"), AsyncResult[bytes])
assert_type(fetch.delay("u").get(), bytes)
assert_type(fetch.apply_async(("u",)).get(), bytes)
assert_type(fetch.apply(("u",)).get(), bytes)
assert_type(pause.delay(1.5), AsyncResult[None])
assert_type(bound_fetch.delay("u").get(), bytes)
based.delay(1)
any_task: Task = add
any_result: AsyncResult = add.delay(1)

app.send_task("by.name", (1,), queue="q")
chain(add.s(1), add.s(2))
group(add.s(n) for n in range(3))
(add.s(1) | add.s(2)).delay()
(add.s(1) | group(add.s(2), add.s(3)) | add.s(4)).apply_async()


async def client() -> None:
    assert_type(await add.adelay(1), AsyncResult[int])
    assert_type(await add.delay(1), int)
    assert_type(await (await fetch.adelay("u")), bytes)
    assert_type(await fetch("u"), bytes)
    assert_type(await bound_fetch("u"), bytes)
    assert_type(await add.aapply_async((1,)), AsyncResult[int])
    assert_type(await add.apply_async((1,)), int)
