"""Settings: names, layers, when they are read, and what is said when they are wrong."""

from __future__ import annotations

import datetime
import logging
import re
import threading
import types
from pathlib import Path
from typing import Any

import pytest

from celeriac.errors import ConfigError
from celeriac.settings import (
    BY_NAME,
    BY_OLD,
    SETTINGS,
    Settings,
    cmdline,
    did_you_mean,
    from_envvar,
    read_source,
)
from celeriac.settings.load import check_style
from celeriac.settings.table import CELERY


def settings(source: Any = None, namespace: str | None = None, **options: Any) -> Settings:
    """Return settings that read the source at their first read, untouched by the environment."""
    conf = Settings(environ={}, **options)
    if source is not None:
        conf.pending(lambda: conf.use(read_source(source), namespace))
    return conf


# --- the table ---------------------------------------------------


def test_every_celery_setting_is_declared_once_under_both_names() -> None:
    assert len(CELERY) == 194
    assert len(BY_NAME) == len(SETTINGS)
    assert set(BY_OLD) == {setting.old for setting in SETTINGS} | {"CELERY_ENABLE_UTC"}


def test_every_default_is_a_value_that_its_setting_takes() -> None:
    for setting in SETTINGS:
        assert setting.check(setting.default) == setting.default
        assert setting.help.endswith("."), setting.name


def test_no_name_with_a_prefix_means_another_setting_than_the_old_name() -> None:
    clashes = [
        old
        for old, setting in BY_OLD.items()
        if old.startswith("CELERY_") and BY_NAME.get(old[7:].lower(), setting) is not setting
    ]

    assert clashes == []


def test_only_the_settings_that_the_environment_rules_are_computed() -> None:
    computed = {name for name in BY_NAME if hasattr(Settings, name)}

    assert computed == {"broker_url", "broker_read_url", "broker_write_url", "result_backend"}


# --- names -------------------------------------------------------


@pytest.mark.parametrize("name", ["task_serializer", "CELERY_TASK_SERIALIZER"])
def test_old_and_new_names_read_and_write_the_same_setting(name: str) -> None:
    conf = settings()

    conf[name] = "yaml"

    assert conf.task_serializer == conf.CELERY_TASK_SERIALIZER == "yaml"
    assert conf["task_serializer"] == conf["CELERY_TASK_SERIALIZER"] == "yaml"


def test_attributes_set_under_old_names_before_the_first_read_count() -> None:
    conf = settings()

    conf.CELERY_ROUTES = {"feed.tasks.import_feed": "feeds"}

    assert conf.task_routes == {"feed.tasks.import_feed": "feeds"}


def test_a_namespace_prefixes_the_new_names() -> None:
    conf = settings(
        {
            "CELERY_BROKER_URL": "redis://one",
            "CELERY_TASK_ALWAYS_EAGER": True,
            "CELERY_REDIS_HOST": "stores",
            "BROKER_HEARTBEAT": 7,
            "DEBUG": True,
            "CELERY_ONCE": {"a": 1},
        },
        namespace="CELERY",
    )

    assert conf.broker_url == "redis://one"
    assert conf.task_always_eager is True
    assert conf.redis_host == "stores"
    assert conf.broker_heartbeat == 7
    assert conf.CELERY_TASK_ALWAYS_EAGER is True
    assert conf.ONCE == conf.CELERY_ONCE == {"a": 1}
    assert conf.namespace == "CELERY"


def test_the_prefixed_name_is_stronger_than_the_bare_one() -> None:
    conf = settings({"BROKER_URL": "redis://bare", "CELERY_BROKER_URL": "redis://ours"}, namespace="CELERY")

    assert conf.broker_url == "redis://ours"


def test_a_lower_case_namespace_has_lower_case_keys() -> None:
    conf = settings({"celery_task_serializer": "yaml"}, namespace="celery")

    assert conf.task_serializer == "yaml"


def test_djangos_time_zone_is_the_timezone_unless_there_is_one_of_our_own() -> None:
    assert settings({"TIME_ZONE": "Europe/Oslo"}).timezone == "Europe/Oslo"
    assert settings({"TIME_ZONE": "Europe/Oslo", "CELERY_TIMEZONE": "UTC"}, "CELERY").timezone == "UTC"


def test_what_a_settings_module_imports_is_no_setting() -> None:
    source = types.ModuleType("conf")
    source.timezone = datetime  # type: ignore[attr-defined]
    source.CELERY_ENABLE_UTC = False  # type: ignore[attr-defined]

    conf = settings(source)

    assert conf.timezone is None
    assert conf.enable_utc is conf.CELERY_ENABLE_UTC is False
    assert conf.table() == {"enable_utc": False}


def test_keys_that_are_no_settings_are_kept() -> None:
    conf = settings({"redbeat_redis_url": "redis://"})

    conf.ONCE = {"backend": "x"}

    assert conf.redbeat_redis_url == "redis://"
    assert conf["ONCE"] == {"backend": "x"}
    assert {"redbeat_redis_url", "ONCE", "task_serializer"} <= set(conf)
    assert len(conf) == len(BY_NAME) + 2


def test_a_missing_key_is_a_key_error_and_a_missing_attribute_an_attribute_error() -> None:
    conf = settings()

    assert conf.get("nothing") is None
    with pytest.raises(KeyError):
        conf["nothing"]
    with pytest.raises(AttributeError, match="did you mean 'task_serializer'"):
        _ = conf.task_serialiser


# --- layers ------------------------------------------------------


def test_changes_stand_above_added_defaults_and_these_above_the_source() -> None:
    conf = settings({"task_serializer": "yaml", "result_serializer": "yaml", "event_serializer": "yaml"})
    conf.add_defaults({"task_serializer": "msgpack", "result_serializer": "msgpack"})
    conf.add_defaults(lambda: {"result_serializer": "raw"})
    conf.task_serializer = "pickle"

    assert (conf.task_serializer, conf.result_serializer, conf.event_serializer) == ("pickle", "raw", "yaml")
    assert conf.task_default_queue == "celery"
    assert conf.value_set_for("CELERY_TASK_SERIALIZER")
    assert not conf.value_set_for("task_default_queue")


def test_a_removed_change_uncovers_the_layer_below() -> None:
    conf = settings({"task_serializer": "yaml"}, changes={"task_serializer": "pickle"})
    before = conf.task_serializer

    del conf.CELERY_TASK_SERIALIZER

    assert (before, conf.task_serializer) == ("pickle", "yaml")
    with pytest.raises(AttributeError):
        del conf.task_serializer


def test_the_environment_stands_above_everything_and_is_read_each_time() -> None:
    environ = {"CELERY_BROKER_URL": "redis://env"}
    conf = Settings({"broker_url": "redis://set", "result_backend": "rpc://"}, environ=environ)

    assert conf.broker_url == conf["BROKER_URL"] == conf.broker_read_url == "redis://env"
    environ["CELERY_BROKER_READ_URL"] = "redis://reading"
    environ["CELERY_RESULT_BACKEND"] = "cache+memory://"
    assert (conf.broker_read_url, conf.broker_write_url) == ("redis://reading", "redis://env")
    assert conf.result_backend == "cache+memory://"
    environ.clear()
    assert (conf.broker_url, conf.result_backend) == ("redis://set", "rpc://")


def test_defaults_that_can_be_changed_in_place_belong_to_one_object() -> None:
    one, other = settings(), settings()

    one.beat_schedule["entry"] = {}

    assert other.beat_schedule == {}
    assert one.CELERYBEAT_SCHEDULE == {"entry": {}}


def test_a_source_that_changed_is_seen_after_a_refresh() -> None:
    source = types.SimpleNamespace(CELERY_TASK_ALWAYS_EAGER=False)
    conf = settings(source, namespace="CELERY")
    assert conf.task_always_eager is False
    before = conf.generation

    source.CELERY_TASK_ALWAYS_EAGER = True
    conf.refresh()

    assert conf.task_always_eager is True
    assert conf.generation > before


def test_helpers_find_values_by_parts_and_by_the_first_that_is_set() -> None:
    conf = settings({"result_extended": True, "redis_password": "x"})

    assert conf.find_value_for_key("extended", "result") is True
    assert conf.get_by_parts("result", "extended") is True
    assert conf.first("redis_username", "CELERY_REDIS_PASSWORD") == "x"
    assert conf.find_option("extended")[:2] == ("result", "extended")
    with pytest.raises(KeyError):
        conf.find_option("no_such_thing")


def test_observers_are_told_of_direct_changes() -> None:
    conf, seen = settings(), []
    conf.bind_to(lambda key, value: seen.append((key, value)))

    conf.update(task_serializer="yaml")

    assert seen == [("task_serializer", "yaml")]


# --- when they are read ------------------------------------------


def test_nothing_is_read_before_the_first_read() -> None:
    reads: list[str] = []
    conf = Settings(environ={})
    conf.pending(lambda: reads.append("read"), lambda: reads.append(f"then {conf.task_serializer}"))

    conf.task_serializer = "yaml"
    conf.update(enable_utc=False)
    assert conf.setdefault("task_serializer", "raw") == "yaml"
    assert "task_serializer" in conf
    assert "other" not in conf
    assert reads == []
    assert not conf.configured

    assert conf.enable_utc is False
    assert reads == ["read", "then yaml"]
    assert conf.configured


def test_values_can_be_read_and_set_while_the_source_is_being_read() -> None:
    conf = Settings(environ={})
    seen: list[object] = []

    def read() -> None:
        conf.use({"task_serializer": "yaml"})
        seen.append(conf.task_serializer)
        conf.result_serializer = "pickle"
        seen.append(conf["CELERY_RESULT_SERIALIZER"])
        seen.append(conf.event_serializer)

    conf.pending(read)

    assert conf.result_serializer == "pickle"
    assert seen == ["yaml", "pickle", "json"]


def test_a_source_that_cannot_be_read_is_tried_again() -> None:
    conf = settings("a_module_that_is_not_there")

    for _ in range(2):
        with pytest.raises(ModuleNotFoundError, match="a_module_that_is_not_there"):
            _ = conf.task_serializer


def test_a_later_source_replaces_the_earlier_one() -> None:
    conf = settings({"task_serializer": "yaml", "event_serializer": "yaml"})
    assert conf.task_serializer == "yaml"

    conf.pending(lambda: conf.use({"task_serializer": "raw"}))

    assert (conf.task_serializer, conf.event_serializer) == ("raw", "json")


def test_many_threads_read_once() -> None:
    reads: list[int] = []
    conf = Settings(environ={})
    started = threading.Barrier(8)

    def read() -> None:
        reads.append(1)
        conf.use({"task_serializer": "yaml"})

    conf.pending(read)
    seen: list[str] = []

    def look() -> None:
        started.wait()
        seen.append(conf.task_serializer)

    threads = [threading.Thread(target=look) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert (reads, seen) == ([1], ["yaml"] * 8)


# --- where they are read from ------------------------------------


def test_sources_are_modules_classes_instances_dicts_and_their_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "conf_of_a_test.py").write_text(
        "import os\nbroker_url = 'redis://module'\n_private = 1\nclass Dev:\n    broker_url = 'redis://class'\n"
    )
    monkeypatch.chdir(tmp_path)  # the working directory counts, also for an installed command

    assert read_source("conf_of_a_test")["broker_url"] == "redis://module"
    assert read_source("conf_of_a_test:Dev")["broker_url"] == "redis://class"
    assert read_source("conf_of_a_test.Dev")["broker_url"] == "redis://class"
    assert read_source({"broker_url": "x"}) == {"broker_url": "x"}
    assert "_private" not in set(read_source("conf_of_a_test"))
    assert settings("conf_of_a_test").table() == {"broker_url": "redis://module"}
    assert settings("conf_of_a_test").Dev.broker_url == "redis://class"


def test_names_that_cannot_be_imported_say_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "conf_with_a_bad_import.py").write_text("import a_package_that_is_missing\n")
    (tmp_path / "conf_without_that.py").write_text("")
    monkeypatch.chdir(tmp_path)

    with pytest.raises(ModuleNotFoundError, match="a_package_that_is_missing"):
        read_source("conf_with_a_bad_import")
    with pytest.raises(ModuleNotFoundError, match="conf_without_that"):
        read_source("conf_without_that.deeper.still")
    with pytest.raises(ConfigError, match="name the module instead: 'conf_without_that'"):
        read_source("conf_without_that.py")
    with pytest.raises(ConfigError, match="has no attribute 'Dev'"):
        read_source("conf_without_that:Dev")


def test_an_environment_variable_names_the_module() -> None:
    assert from_envvar("CONF", {"CONF": "proj.conf"}) == "proj.conf"
    with pytest.raises(ConfigError, match="'CONF' is not set"):
        from_envvar("CONF", {})


def test_the_private_attributes_that_raise_are_never_asked() -> None:
    class Strange:
        broker_url = "redis://"

        @property
        def SECRET_KEY(self) -> str:
            raise RuntimeError("must not be empty")

    assert settings(Strange()).broker_url == "redis://"


# --- what is wrong with them -------------------------------------


def test_new_and_old_names_do_not_mix_and_the_majority_rules() -> None:
    with pytest.raises(ConfigError, match=r"(?s)Cannot mix.*CELERY_TASK_SERIALIZER +-> task_serializer"):
        check_style(dict.fromkeys(["broker_url", "result_backend", "CELERY_TASK_SERIALIZER"]))
    with pytest.raises(ConfigError, match=r"(?s)Cannot mix.*broker_url +-> BROKER_URL"):
        check_style(dict.fromkeys(["broker_url", "CELERY_RESULT_BACKEND", "CELERY_TASK_SERIALIZER"]))
    with pytest.raises(ConfigError, match=r"BROKER_URL +-> broker_url"):
        check_style(dict.fromkeys(["task_serializer", "BROKER_URL"]))


def test_settings_given_in_both_styles_or_with_a_namespace_are_no_mixture() -> None:
    check_style(dict.fromkeys(["task_serializer", "CELERY_TASK_SERIALIZER", "enable_utc"]))
    conf = settings({"CELERY_TASK_SERIALIZER": "yaml", "enable_utc": False}, namespace="CELERY")
    mixed = settings({"CELERY_TASK_SERIALIZER": "yaml"}, changes={"enable_utc": False})

    assert (conf.task_serializer, conf.enable_utc) == ("yaml", False)
    assert (mixed.task_serializer, mixed.enable_utc) == ("yaml", False)


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("task_serialiser", "task_serializer"),
        ("worker_concurency", "worker_concurrency"),
        ("CELERY_TASK_SERIALIZR", "CELERY_TASK_SERIALIZER"),
        ("brokr_url", "broker_url"),
        ("imoprts", "imports"),
    ],
)
def test_a_misspelt_setting_is_an_error_with_a_suggestion(key: str, meant: str) -> None:
    with pytest.raises(ConfigError, match=f"no setting '{key}'; did you mean '{meant}'"):
        settings({key: 1}).finalize()
    with pytest.raises(ConfigError, match=f"no setting '{key}'; did you mean '{meant}'"):
        settings(changes={key: 1}).finalize()
    conf = settings()
    conf.finalize()
    with pytest.raises(ConfigError, match=f"no setting '{key}'; did you mean '{meant}'"):
        conf[key] = 1


def test_a_misspelt_setting_in_a_namespace_is_suggested_with_its_prefix() -> None:
    with pytest.raises(ConfigError, match="did you mean 'CELERY_TASK_SERIALIZER'"):
        settings({"CELERY_TASK_SERIALISER": "yaml", "TASK_SERIALISER": 1}, "CELERY").finalize()


def test_names_that_resemble_no_setting_are_left_alone() -> None:
    for name in ("ONCE", "redbeat_redis_url", "INSTALLED_APPS", "task", "x", "EMAIL_HOST", "my_own_thing"):
        assert did_you_mean(name, [*BY_NAME, *BY_OLD]) is None


def test_the_drop_in_logs_once_instead(caplog: pytest.LogCaptureFixture) -> None:
    conf = settings({"task_serialiser": "yaml", "worker_concurrency": "many"}, strict=False)

    with caplog.at_level(logging.WARNING, "celeriac.settings"):
        assert conf.task_serializer == "json"
        conf.refresh()

    assert conf.worker_concurrency == "many"
    assert sorted(record.getMessage().split(";")[0].split(":")[0] for record in caplog.records) == [
        "There is no setting 'task_serialiser'",
        "worker_concurrency = 'many' cannot be used",
    ]


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("worker_concurrency", "many", "a whole number"),
        ("worker_concurrency", 1.5, "a whole number"),
        ("task_always_eager", "perhaps", "True or False"),
        ("task_always_eager", [1], "True or False"),
        ("task_time_limit", "soon", "a number of seconds or a timedelta"),
        ("broker_heartbeat", {}, "a number"),
        ("task_default_queue", 5, "a text"),
        ("imports", 5, "a list or tuple"),
        ("broker_transport_options", "x", "a dict"),
        ("security_key_password", 5, "bytes"),
    ],
)
def test_a_value_of_the_wrong_kind_is_named_with_what_is_wanted(name: str, value: Any, wanted: str) -> None:
    with pytest.raises(ConfigError) as caught:
        settings({BY_NAME[name].old: value}).finalize()

    assert str(caught.value) == f"{BY_NAME[name].old} = {value!r} cannot be used: it takes {wanted}."


@pytest.mark.parametrize(
    ("name", "value", "read"),
    [
        ("worker_concurrency", "4", 4),
        ("worker_concurrency", 4.0, 4),
        ("task_always_eager", "False", False),
        ("task_always_eager", 1, True),
        ("result_expires", "60", 60.0),
        ("result_expires", datetime.timedelta(hours=1), datetime.timedelta(hours=1)),
        ("imports", "proj.tasks", ("proj.tasks",)),
        ("accept_content", {"json"}, {"json"}),
        ("security_key", Path("/etc/key.pem"), "/etc/key.pem"),
        ("security_key_password", "secret", b"secret"),
        ("worker_pool", int, int),
        ("worker_concurrency", None, None),
    ],
)
def test_values_whose_meaning_is_beyond_doubt_are_converted(name: str, value: Any, read: Any) -> None:
    assert settings({name: value})[name] == read


def test_a_wrong_change_does_not_undo_the_right_ones() -> None:
    conf = settings(changes={"task_serializer": "yaml", "worker_concurrency": "many"})
    with pytest.raises(ConfigError):
        conf.finalize()

    conf.worker_concurrency = 2

    assert (conf.task_serializer, conf.worker_concurrency) == ("yaml", 2)


# --- shown -------------------------------------------------------


def test_secrets_are_hidden_when_settings_are_shown() -> None:
    conf = settings(
        {
            "broker_url": ["redis://:pw@one/0", "amqp://guest:pw@two//"],
            "result_backend": "db+postgresql://me:pw@host/db?password=pw",
            "redis_password": "pw",
            "s3_secret_access_key": "pw",
            "broker_transport_options": {"password": "pw", "max_retries": 3},
            "task_default_routing_key": "tasks",
        }
    )

    shown = conf.table()

    assert "pw" not in repr(shown).replace("password", "")
    assert shown["broker_url"] == ["redis://:**@one/0", "amqp://guest:**@two//"]
    assert shown["redis_password"] == shown["s3_secret_access_key"] == "********"
    assert shown["broker_transport_options"] == {"password": "********", "max_retries": 3}
    assert shown["task_default_routing_key"] == "tasks"
    assert conf.table(censored=False)["redis_password"] == "pw"
    assert len(conf.table(with_defaults=True)) == len(BY_NAME)
    assert "redis_password: '********'" in conf.humanize()
    assert "pw@" not in repr(conf)


def test_old_names_and_settings_without_effect_can_be_told(caplog: pytest.LogCaptureFixture) -> None:
    conf = settings({"CELERY_TASK_SERIALIZER": "yaml", "CELERYD_AGENT": "x"})

    assert conf.maybe_warn_deprecated_settings()
    assert "CELERY_TASK_SERIALIZER -> task_serializer" in caplog.text
    assert conf.without_effect() == ["worker_agent"]
    assert not settings({"task_serializer": "yaml"}).maybe_warn_deprecated_settings()


@pytest.mark.parametrize("name", ["broker_transport_options", "result_backend_transport_options"])
def test_that_a_visibility_timeout_is_not_needed_can_be_told(name: str) -> None:
    assert settings({name: {"visibility_timeout": 3600}}).without_effect() == [
        f"{name}['visibility_timeout']"
    ]
    assert settings({name: {"socket_timeout": 3600}}).without_effect() == []


def test_prefixed_names_go_before_what_code_gave_to_the_app_until_the_first_read() -> None:
    settings = Settings({"broker_url": "memory://code"})
    settings.task_serializer = "yaml"
    settings.pending(
        lambda: settings.use(
            {"CELERY_BROKER_URL": "memory://project", "CELERY_TASK_SERIALIZER": "json", "TIMEZONE": "x"},
            "CELERY",
        )
    )

    assert (settings.broker_url, settings.task_serializer) == ("memory://project", "json")

    settings.broker_url = "memory://test"
    settings.refresh()

    assert settings.broker_url == "memory://test"


@pytest.mark.parametrize(
    ("argument", "found"),
    [
        ("worker.prefetch_multiplier=7", {"worker_prefetch_multiplier": "7"}),
        ("worker_concurrency=3", {"worker_concurrency": "3"}),
        (".pool=solo", {"worker_pool": "solo"}),
        ("pool=solo", {"worker_pool": "solo"}),
        ('broker.transport_options=(json){"a": 1}', {"broker_transport_options": {"a": 1}}),
        ("my.own=(tuple)[1, 2]", {"my_own": (1, 2)}),
        ("my_own=(bool)no", {"my_own": False}),
        ("my_own=a=b", {"my_own": "a=b"}),
    ],
)
def test_settings_can_stand_on_a_command_line(argument: str, found: dict[str, Any]) -> None:
    assert cmdline.parse([argument], "worker") == found


@pytest.mark.parametrize("argument", ["no equals", "a=(int)x", "a=(nonsense)x", "a=(list)7", "a=(int"])
def test_what_is_no_setting_on_a_command_line_is_named(argument: str) -> None:
    with pytest.raises(ValueError, match=re.escape(repr(argument))):
        cmdline.parse([argument], "worker")
