"""A workflow in one line, for those who read what has failed."""

from __future__ import annotations

from workflows.model import Call, Chain, Group, Node


def described(node: Node) -> str:
    """Return a workflow as text.

    ``c1:fail!+link-2?old-3{c4}`` is a call that fails, is immutable, has a callback and an errback, and is
    replaced by another; ``(a | b)`` was joined by ``|`` and ``list(a | b)`` made as a list; ``[a, b]`` is a
    group, and ``([a, b] -> c)`` a chord.
    """
    if isinstance(node, Call):
        how = "" if node.how == "ok" else f":{node.how}"
        links = "".join(f"+{label}" for label in node.links) + _errbacks(node.errbacks)
        instead = "" if node.instead is None else f"{{{described(node.instead)}}}"
        return f"{node.label}{how}{'!' if node.immutable else ''}{links}{instead}"
    if isinstance(node, Chain):
        steps = " | ".join(map(described, node.steps))
        return f"{'list' if node.plain else ''}({steps}){_errbacks(node.errbacks)}"
    if isinstance(node, Group):
        return f"[{', '.join(map(described, node.members))}]"
    return f"({described(Group(node.header))} -> {described(node.body)})"


def _errbacks(labels: tuple[str, ...]) -> str:
    return "".join(f"?{label}" for label in labels)
