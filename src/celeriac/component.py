"""Parts of an app that another distribution brings."""

from __future__ import annotations

from typing import Any

from celeriac.errors import ComponentMissing
from celeriac.settings.load import import_by_name


class Component:
    """A part of the app that another distribution brings: made when it is first asked for.

    Args:
        name: Of the attribute; the class is in ``<name>_cls``, itself or by its dotted name.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, app: Any, owner: Any = None) -> Any:
        if app is None:
            return self
        made = app._components.get(self._name)
        if made is None:
            wanted = getattr(app, f"{self._name}_cls")
            if wanted is None:
                raise ComponentMissing(
                    f"This app has no {self._name!r}: nothing that is installed here provides it "
                    f"({self._name}_cls is None)."
                )
            factory = import_by_name(wanted) if isinstance(wanted, str) else wanted
            made = app._components[self._name] = factory(app=app)
        return made

    def __set__(self, app: Any, made: Any) -> None:
        app._components[self._name] = made
