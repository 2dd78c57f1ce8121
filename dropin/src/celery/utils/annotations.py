"""What type annotations say."""

from __future__ import annotations

import types
from inspect import isclass
from typing import Any, Union, get_args, get_origin

__all__ = ("annotation_is_class", "annotation_issubclass", "get_optional_arg", "is_none_type")


def is_none_type(value: Any) -> bool:
    """Return whether it is the type of None."""
    return value is type(None)


def get_optional_arg(annotation: Any) -> Any:  # Any: an annotation
    """Return the type of an optional annotation: of ``int | None`` it is ``int``; None of any other."""
    if get_origin(annotation) not in (Union, types.UnionType):
        return None
    arguments = get_args(annotation)
    if len(arguments) != 2 or not any(map(is_none_type, arguments)):
        return None
    return next(one for one in arguments if not is_none_type(one))


def annotation_is_class(annotation: Any) -> bool:
    """Return whether it is a class, and no generic of one."""
    return isclass(annotation) and not isinstance(annotation, types.GenericAlias)


def annotation_issubclass(annotation: Any, cls: type) -> bool:
    """Return whether it is a class below another one."""
    return annotation_is_class(annotation) and issubclass(annotation, cls)
