"""YAML, of the safe kind only."""

from __future__ import annotations

from functools import cache
from typing import Any

from celeriac.errors import ConfigError


@cache
def _tools() -> tuple[Any, Any, Any]:
    """Return the module, a dumper that knows subclasses of the plain types, and a safe loader."""
    try:
        import yaml
    except ImportError as exc:
        raise ConfigError("Serializer yaml needs the package pyyaml: pip install celeriac[yaml]") from exc

    class Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
        """A safe dumper that writes signatures, which are dicts of a class of their own, as dicts."""

    Dumper.add_multi_representer(dict, lambda dumper, value: dumper.represent_dict(value.items()))
    Dumper.add_multi_representer(list, lambda dumper, value: dumper.represent_list(value))
    Dumper.add_multi_representer(tuple, lambda dumper, value: dumper.represent_list(value))
    Dumper.add_multi_representer(str, lambda dumper, value: dumper.represent_str(str(value)))
    return yaml, Dumper, getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def encode(value: Any) -> str:  # Any: the user's value
    """Return the YAML text of a value.

    Raises:
        ConfigError: The package is missing.
        yaml.YAMLError: The value has no form in safe YAML.
    """
    yaml, dumper, _ = _tools()
    text: str = yaml.dump(value, Dumper=dumper, sort_keys=False)
    return text


def decode(text: str) -> Any:  # Any: whatever the sender wrote
    """Return the value of YAML text; tags that would make objects are refused.

    Raises:
        ConfigError: The package is missing.
        yaml.YAMLError: It is no safe YAML.
    """
    yaml, _, loader = _tools()
    return yaml.load(text, Loader=loader)
