"""Questions to workers: Celery's ``app.control.inspect()``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from celeriac.remote.control import flatten_reply
from celeriac.remote.mailbox import OnReply, Reply


class Inspect:
    """Asks workers about themselves.

    Every method returns a dict by the names of the nodes, or None when nobody answers. When the destination
    is a single name it returns that node's answer.

    Args:
        destination: Names of nodes, or one; None: all.
        timeout: Seconds to wait.
        callback: Called with each answer as it comes.
        connection: Accepted for Celery's sake; the app's broker is used.
        app: The app.
        limit: Enough answers.
        pattern: Only nodes whose names fit; takes effect with ``matcher``.
        matcher: ``glob`` or ``pcre``.
    """

    app: Any = None  # Any: a Celeriac; set in the app's own subclass

    def __init__(
        self,
        destination: Sequence[str] | str | None = None,
        timeout: float = 1.0,
        callback: OnReply | None = None,
        connection: Any = None,
        app: Any = None,
        limit: int | None = None,
        pattern: str | None = None,
        matcher: str | None = None,
    ) -> None:
        self.app = app or self.app
        self.destination = destination
        self.timeout = timeout
        self.callback = callback
        self.connection = connection
        self.limit = limit
        self.pattern = pattern
        self.matcher = matcher

    def _prepare(self, reply: list[Reply] | None) -> Any:
        if not reply:
            return None
        by_node = flatten_reply(reply)
        if isinstance(self.destination, str):
            return by_node.get(self.destination)
        if self.pattern:
            return by_node
        return by_node

    def _request(self, command: str, **kwargs: Any) -> Any:
        destination = [self.destination] if isinstance(self.destination, str) else self.destination
        return self._prepare(
            self.app.control.broadcast(
                command,
                arguments=kwargs,
                destination=destination,
                callback=self.callback,
                limit=self.limit,
                timeout=self.timeout,
                reply=True,
                pattern=self.pattern,
                matcher=self.matcher,
            )
        )

    def report(self) -> Any:
        """Return what to put into a bug report."""
        return self._request("report")

    def clock(self) -> Any:
        """Return the logical clocks."""
        return self._request("clock")

    def active(self, safe: bool | None = None) -> Any:
        """Return the tasks that run; with ``safe``, arguments as text only."""
        return self._request("active", safe=safe)

    def scheduled(self, safe: bool | None = None) -> Any:
        """Return the tasks that wait for their time in a worker, or at the broker, in all each once.

        Of what is at the broker, all workers of its queue tell; the answer of one has it.
        """
        answers = self._request("scheduled")
        if not isinstance(answers, dict):
            return answers
        seen: set[str] = set()
        return {node: _unseen(answer, seen) for node, answer in answers.items()}

    def reserved(self, safe: bool | None = None) -> Any:
        """Return the tasks that a worker has taken and not begun."""
        return self._request("reserved")

    def stats(self) -> Any:
        """Return figures about pool, broker, tasks and resources."""
        return self._request("stats")

    def revoked(self) -> Any:
        """Return the ids of revoked tasks."""
        return self._request("revoked")

    def registered(self, *taskinfoitems: str) -> Any:
        """Return the names of the tasks, each with these attributes."""
        return self._request("registered", taskinfoitems=list(taskinfoitems))

    registered_tasks = registered

    def ping(self, destination: Sequence[str] | str | None = None) -> Any:
        """Return who is there."""
        if destination is not None:
            self.destination = destination
        return self._request("ping")

    def active_queues(self) -> Any:
        """Return the queues that are consumed from."""
        return self._request("active_queues")

    def query_task(self, *ids: Any) -> Any:
        """Return what workers know of tasks by their ids."""
        if len(ids) == 1 and isinstance(ids[0], (list, tuple)):
            ids = tuple(ids[0])
        return self._request("query_task", ids=list(ids))

    def conf(self, with_defaults: bool = False) -> Any:
        """Return the settings that were changed, or all; secrets hidden."""
        return self._request("conf", with_defaults=with_defaults)

    def hello(self, from_node: str, revoked: Any = None) -> Any:
        """Exchange logical clocks and revoked tasks with workers."""
        return self._request("hello", from_node=from_node, revoked=revoked)

    def memsample(self) -> Any:
        """Return how much memory the workers use."""
        return self._request("memsample")

    def memdump(self, samples: int = 10) -> Any:
        """Return what `memsample` told lately."""
        return self._request("memdump", samples=samples)

    def objgraph(self, type: str = "Request", n: int = 200, max_depth: int = 10) -> Any:
        """Have workers draw a graph of their objects."""
        return self._request("objgraph", num=n, max_depth=max_depth, type=type)


def as_json(reply: Any) -> str:
    """Return an answer as JSON, whatever is in it."""
    return json.dumps(reply, default=repr)


def _unseen(answer: Any, seen: set[str]) -> Any:
    """Return those of a worker's scheduled tasks that no other has told of before."""
    if not isinstance(answer, list):
        return answer  # an error
    unseen = []
    for told in answer:
        task_id = told["request"]["id"]
        if task_id not in seen:
            seen.add(task_id)
            unseen.append(told)
    return unseen
