"""Tasks whose arguments and return values are pydantic models."""

from __future__ import annotations

import sys
from typing import Any

import pytest

pydantic = pytest.importorskip("pydantic")

from celeriac.errors import ConfigError  # noqa: E402
from desk import Desk, new_app  # noqa: E402


class Order(pydantic.BaseModel):  # type: ignore[misc,name-defined]
    number: int
    note: str | None = None


class Receipt(pydantic.BaseModel):  # type: ignore[misc,name-defined]
    total: int


def test_models_are_made_of_arguments_and_dumped_from_results() -> None:
    app = new_app(results=True)

    @app.task(pydantic=True)
    def price(order: Order, extra: Order | None = None, factor: int = 1) -> Receipt:
        return Receipt(total=order.number * factor + (extra.number if extra else 0))

    result = price.delay({"number": "3"}, extra={"number": 4}, factor=2)  # type: ignore[arg-type]
    none = price.delay({"number": 3})  # type: ignore[arg-type]
    Desk(app).run_all()

    assert result.get(timeout=1) == {"total": 10}
    assert none.get(timeout=1) == {"total": 3}


def test_a_wrong_argument_fails_the_task() -> None:
    app = new_app()

    @app.task(pydantic=True, pydantic_strict=True)
    def price(order: Order) -> None: ...

    assert isinstance(price.apply(({"number": "3"},)).result, pydantic.ValidationError)
    assert isinstance(price.apply(({"number": []},)).result, pydantic.ValidationError)


def test_bound_and_coroutine_tasks_are_validated_too() -> None:
    app = new_app()

    @app.task(pydantic=True, bind=True)
    def bound(self: Any, order: Order) -> tuple[str, int]:
        return self.name, order.number

    @app.task(pydantic=True)
    async def coroutine(order: Order) -> Receipt:
        return Receipt(total=order.number)

    assert bound.apply(({"number": 1},)).get() == (bound.name, 1)
    assert coroutine.apply(({"number": 1},)).get() == {"total": 1}


def test_validators_know_the_app_and_the_task() -> None:
    app = new_app()
    seen: dict[str, Any] = {}

    class Nosy(pydantic.BaseModel):  # type: ignore[misc,name-defined]
        @pydantic.model_validator(mode="before")  # type: ignore[untyped-decorator]
        @classmethod
        def look(cls, value: Any, info: Any) -> Any:
            seen.update(info.context)
            return value

    def task(model: Any) -> None: ...

    task.__annotations__["model"] = Nosy
    made = app.declare(task, name="nosy", pydantic=True, pydantic_context={"mine": 1})
    made.apply(({},), throw=True)

    assert seen == {"mine": 1, "celery_app": app, "celery_task_name": "nosy"}


def test_without_pydantic_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydantic", None)

    with pytest.raises(ConfigError, match=r"pip install celeriac\[pydantic\]"):

        @new_app().task(pydantic=True)
        def price() -> None: ...
