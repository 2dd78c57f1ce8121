"""The part of an app that has its settings: where they come from, and the time zone they say."""

from __future__ import annotations

import datetime
import functools
import importlib
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

from celeriac.errors import ConfigError
from celeriac.hooks import Signal
from celeriac.settings.load import from_envvar, read_source
from celeriac.settings.settings import Settings

logger: logging.Logger = logging.getLogger(__name__)

_UTC = datetime.UTC


class Configured:
    """Something with settings, which are read from their source at the first look at one of them.

    Args:
        changes: Settings that win over all others.
        source: Where the others come from; see `config_from_object`.
        namespace: Prefix of their names there.
    """

    def __init__(self, changes: Mapping[str, Any], source: Any, namespace: str | None) -> None:
        self.namespace = namespace
        self.on_configure: Signal = Signal(name="app.on_configure")
        self.on_after_configure: Signal = Signal(name="app.on_after_configure", providing_args={"source"})
        self._config_source = source
        self._config_namespace = namespace
        self._config_silent = False
        self._later: list[tuple[str, dict[str, Any]]] = []  # for `beat_schedule`, once that is known
        self._conf = Settings(changes)
        self._conf.pending(self._read_settings, self._settings_read)

    @property
    def conf(self) -> Settings:
        """The settings; they are read from their source at the first look at one."""
        return self._conf

    @conf.setter
    def conf(self, conf: Settings) -> None:
        self._conf = conf
        self._settings_replaced()

    @property
    def configured(self) -> bool:
        """Whether the settings were read."""
        return self._conf.configured

    def config_from_object(
        self, obj: Any, silent: bool = False, force: bool = False, namespace: str | None = None
    ) -> bool | None:
        """Take the settings from an object, in place of where they came from before.

        Args:
            obj: A module, class, instance or dict, or the dotted name of one (``pkg.mod:attribute``).
            silent: Ignore that it cannot be imported.
            force: Read it now, not at the first look at a setting.
            namespace: Prefix of the settings' names in it, such as ``CELERY``.

        Raises:
            ImportError: There is nothing of that name (with ``force``, else when it is read).
        """
        self._config_source = obj
        self._config_namespace = namespace or self.namespace
        self._config_silent = silent
        if self._conf.configured:
            self._use(obj)
        elif force:
            self._conf.finalize()
        return True if silent else None

    def config_from_envvar(
        self, variable_name: str, silent: bool = False, force: bool = False
    ) -> bool | None:
        """Take the settings from the module that an environment variable names; False when there is none.

        Raises:
            ConfigError: The variable is not set.
        """
        try:
            module = from_envvar(variable_name)
        except ConfigError:
            if silent:
                return False
            raise
        return self.config_from_object(module, silent=silent, force=force)

    def config_from_cmdline(self, argv: Iterable[str], namespace: str = "celery") -> None:
        """Set what stands on a command line: ``worker.prefetch_multiplier=7``; see `settings.cmdline.parse`.

        Args:
            argv: The arguments.
            namespace: The section of those that begin with a dot, such as ``worker``.

        Raises:
            ValueError: An argument is no ``name=value``, or its value is not of the kind that it says.
        """
        # Loaded only now: it is for those who start programs with such arguments.
        self._conf.update(importlib.import_module("celeriac.settings.cmdline").parse(argv, namespace))

    def add_periodic_task(
        self,
        schedule: Any,
        sig: Any,
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        name: str | None = None,
        missed: str | None = None,
        **opts: Any,
    ) -> str:
        """Add a call to the setting ``beat_schedule``, and return the name that it has there.

        Args:
            schedule: Seconds, a timedelta or a schedule: when it is due.
            sig: A signature of the call, or the task.
            args: Positional arguments, in front of those of the signature.
            kwargs: Keyword arguments, beside those of the signature.
            name: The entry's name; made of the call when not given.
            missed: What becomes of runs that were missed: ``skip``, ``once`` (as without) or ``all``.
            **opts: Options of `celeriac.task.Task.apply_async`.
        """
        call: Any = sig if isinstance(sig, Mapping) else sig.signature()
        call = call.clone(tuple(args), dict(kwargs or {}))
        key = name or repr(call)
        entry = {
            "schedule": schedule,
            "name": key,
            "task": call.task,
            "args": call.args,
            "kwargs": call.kwargs,
            "options": {**call.options, **opts},
        }
        if missed is not None:
            entry["missed"] = missed
        if self._conf.configured:
            self._schedule([(key, entry)])
        else:
            self._later.append((key, entry))
        return key

    def _schedule(self, entries: Iterable[tuple[str, dict[str, Any]]]) -> None:
        known = dict(self._conf.beat_schedule)
        for name, entry in entries:
            if name in known and known[name] != entry:
                logger.warning(
                    "There are two periodic tasks named %r: the last one counts. Give one another name.", name
                )
            known[name] = entry
        self._conf.beat_schedule = known

    def add_defaults(self, source: Mapping[str, Any] | Callable[[], Mapping[str, Any]]) -> None:
        """Put settings above the source and below those that are set directly."""
        self._conf.add_defaults(source)

    def either(self, default_key: str, *defaults: Any) -> Any:
        """Return the first value that is not None, else the setting."""
        return next((value for value in defaults if value is not None), self._conf.get(default_key))

    def _settings_replaced(self) -> None:
        """Forget what was made of the old settings."""

    def _read_settings(self) -> None:
        self.on_configure.send(sender=self)
        source = self._config_source
        if source is None:
            source = os.environ.get("CELERY_CONFIG_MODULE")
        if source is not None:
            self._use(source)

    def _use(self, source: Any) -> None:
        try:
            self._conf.use(read_source(source), self._config_namespace)
        except ImportError:
            if not self._config_silent:
                raise

    def _settings_read(self) -> None:
        if self._later:
            entries, self._later = self._later, []
            self._schedule(entries)
        self.on_after_configure.send(sender=self, source=self._conf)

    @property
    def timezone(self) -> datetime.tzinfo:
        """The time zone of the settings; UTC, or with ``enable_utc`` off the system's, when there is none."""
        zone = self._conf.timezone
        if zone is None:
            return _UTC if self._conf.enable_utc else _local_zone()
        return _zone(zone) if isinstance(zone, str) else zone

    def now(self) -> datetime.datetime:
        """Return the current time in the app's time zone."""
        return datetime.datetime.now(self.timezone)

    def uses_utc_timezone(self) -> bool:
        """Return whether the app's time zone is UTC."""
        return self.timezone is _UTC or str(self.timezone) == "UTC"


@functools.cache
def _zone(name: str) -> datetime.tzinfo:
    try:
        return cast("datetime.tzinfo", importlib.import_module("zoneinfo").ZoneInfo(name))
    except (OSError, ValueError, KeyError) as exc:  # not found; no such form of name
        raise ConfigError(
            f"timezone is {name!r}, and there is no such time zone: give an IANA name such as "
            "'Europe/Berlin' or 'UTC' (where the system has no zones, `pip install tzdata` brings them)"
        ) from exc


def _local_zone() -> datetime.tzinfo:
    zone = datetime.datetime.now().astimezone().tzinfo
    assert zone is not None, "astimezone() gives every time a zone"
    return zone
