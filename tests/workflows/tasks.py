"""The tasks of random workflows, and their signatures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celeriac import chain, chord, group, signature
from celeriac.app import Celeriac
from celeriac.canvas import _chain
from workflows.model import Call, Chain, Group, Node, value_of

Note = Callable[[str, str, str], None]  # workflow, "ran" or "called", label


class Fault(Exception):
    """What calls fail with: their label."""


class Tasks:
    """The tasks, in an app.

    Args:
        app: The app.
        note: Told what has run, and what was called; by whatever process it is in.
        **options: Options of all tasks.
    """

    def __init__(self, app: Celeriac, note: Note, **options: Any) -> None:
        def step(self: Any, *args: Any, key: str, label: str, how: str = "ok", instead: Any = None) -> Any:
            note(key, "ran", label)
            if how == "fail":
                raise Fault(label)
            if how == "retry" and self.request.retries < 2:
                raise self.retry(countdown=0)
            if how == "gives up":
                raise self.retry(exc=Fault(label), countdown=0, max_retries=1)
            if how == "replace":
                return self.replace(signature(instead, app=app))
            return value_of(label, args)

        def link(value: Any, *, key: str, label: str) -> None:
            note(key, "called", label)

        def old(task_id: str, *, key: str, label: str) -> None:
            note(key, "called", label)

        def new(request: Any, exc: BaseException, traceback: Any, *, key: str, label: str) -> None:
            note(key, "called", label)

        def fixed(*, key: str, label: str) -> None:
            note(key, "called", label)

        self.step: Any = app.declare(step, name="step", bind=True, **options)
        self._called: dict[str, Any] = {
            function.__name__: app.declare(function, name=function.__name__, **options)
            for function in (link, old, new, fixed)
        }
        self._app = app

    def signature(self, node: Node, key: str) -> Any:
        """Return a described workflow as a signature.

        Args:
            node: The description.
            key: Told to `Note` with everything that happens in it.
        """
        if isinstance(node, Call):
            return self._call(node, key)
        if isinstance(node, Chain):
            steps = [self.signature(step, key) for step in node.steps]
            made = _chain(steps, app=self._app) if node.plain or len(steps) == 1 else chain(*steps)
            for errback in node.errbacks:
                made.link_error(self._linked(errback, key))
            return made
        if isinstance(node, Group):
            return group([self.signature(member, key) for member in node.members], app=self._app)
        header = [self.signature(member, key) for member in node.header]
        return chord(header, self.signature(node.body, key), app=self._app)

    def _call(self, call: Call, key: str) -> Any:
        kwargs: dict[str, Any] = {"key": key, "label": call.label, "how": call.how}
        if call.instead is not None:
            kwargs["instead"] = self.signature(call.instead, key)
        made = self.step.signature((), kwargs, immutable=call.immutable)
        for label in call.links:
            made.link(self._linked(label, key))
        for label in call.errbacks:
            made.link_error(self._linked(label, key))
        return made

    def _linked(self, label: str, key: str) -> Any:
        kind = label.partition("-")[0]
        immutable = kind == "fixed"
        return self._called[kind].signature((), {"key": key, "label": label}, immutable=immutable)
