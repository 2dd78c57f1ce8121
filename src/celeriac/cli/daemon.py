"""Options of commands that go on for long: their files, and which user and group they are."""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Callable
from typing import Any

import click
import msgspec

from celeriac.app import Celeriac


def options(function: Callable[..., Any]) -> Callable[..., Any]:  # Any: click's values
    """Add the options that all such commands have."""
    for option in (
        click.option("--executable", help="With --detach: the Python interpreter to use."),
        click.option("--umask", help="Permissions that new files do not get, such as 022."),
        click.option("--gid", help="Become this group, by name or number."),
        click.option("--uid", help="Become this user, by name or number, before anything is opened."),
    ):
        function = option(function)
    return function


class Daemon(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for, by options or settings."""

    logfile: str | None
    pidfile: str | None
    executable: str | None
    uid: str | int | None
    gid: str | int | None
    umask: str | int | None

    def become(self) -> None:
        """Make this process the user and group that it shall be.

        Raises:
            ClickException: There is no such user or group, or this one may not become it.
        """
        if self.umask is not None:
            os.umask(_mask(self.umask))
        user = None if self.uid is None else _user(self.uid)
        group = _group(self.gid) if self.gid is not None else None if user is None else user.pw_gid
        if (group is None or group == os.getegid()) and (user is None or user.pw_uid == os.geteuid()):
            return  # a process that went on in the background has it from its parent
        try:
            if group is not None and group != os.getegid():
                os.setgid(group)
            if user is not None and user.pw_uid != os.geteuid():
                os.initgroups(user.pw_name, user.pw_gid if group is None else group)
                os.setuid(user.pw_uid)
        except PermissionError as exc:
            wanted = f"user {self.uid}, group {group}" if user is not None else f"group {self.gid}"
            raise click.ClickException(
                f"This process may not become {wanted}: begin it as root, or as that user without --uid."
            ) from exc


def taken(app: Celeriac, command: str, given: dict[str, Any]) -> Daemon:  # Any: click's values
    """Take these options out of all; what was not given is a setting such as ``worker_logfile``.

    Args:
        app: Whose settings count.
        command: The command's name.
        given: The values of its options.
    """
    values = {
        name: given.pop(name, None) or app.conf.get(f"{command}_{name}") for name in Daemon.__struct_fields__
    }
    values["logfile"] = values["logfile"] or app.conf.get(f"{command}_log_file")  # Celery's older name
    return Daemon(**values)


def _mask(value: str | int) -> int:
    if isinstance(value, int):
        return value
    try:
        return int(value, 8)
    except ValueError as exc:
        raise click.UsageError(f"--umask {value!r} is no octal number, such as 022.") from exc


def _user(value: str | int) -> pwd.struct_passwd:
    try:
        return pwd.getpwuid(int(value)) if str(value).isdigit() else pwd.getpwnam(str(value))
    except KeyError as exc:
        raise click.UsageError(f"There is no user {value!r}: --uid takes a name or a number.") from exc


def _group(value: str | int) -> int:
    if str(value).isdigit():
        return int(value)
    try:
        return grp.getgrnam(str(value)).gr_gid
    except KeyError as exc:
        raise click.UsageError(f"There is no group {value!r}: --gid takes a name or a number.") from exc
