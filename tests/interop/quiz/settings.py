"""Settings: names, defaults, sources, priorities."""

import os
import sys
import types

from celery import Celery
from celery.app import defaults
from quiz.asking import error, question, shown


@question
def every_setting_under_both_names_with_its_default():
    """Of those that Celery has; ours may have more."""
    names = {name: old for name, old in defaults._TO_OLD_KEY.items() if not name.startswith("riak_")}
    return {name: [old, shown(defaults.DEFAULTS[name])] for name, old in sorted(names.items())}


def app_of(source, **kwargs):
    app = Celery("x", set_as_current=False)
    app.config_from_object(source, **kwargs)
    return app


def module(name, **values):
    made = sys.modules[name] = types.ModuleType(name)
    made.__dict__.update(values)
    return made


class Holder:
    task_serializer = "yaml"
    my_own = 1
    _private = 2


@question
def sources_of_every_kind():
    module("quiz_config", task_serializer="yaml", Holder=Holder, nested={"task_serializer": "msgpack"})
    sources = [
        Holder,
        Holder(),
        {"task_serializer": "yaml"},
        "quiz_config",
        "quiz_config:Holder",
        "quiz_config:nested",
    ]
    return [app_of(source).conf.task_serializer for source in sources]


@question
def what_cannot_be_a_source():
    return {
        "missing module": error(lambda: app_of("no_such_module").conf.timezone),
        "missing forced": error(app_of, "no_such_module", force=True),
        "a file": error(lambda: app_of("no_such_module.py").conf.timezone),
    }


@question
def an_environment_variable_names_the_source():
    module("quiz_config2", task_serializer="yaml")
    app = Celery("x", set_as_current=False)
    os.environ["QUIZ_CONFIG"] = "quiz_config2"
    found = [app.config_from_envvar("QUIZ_CONFIG"), app.conf.task_serializer]
    return found, error(app.config_from_envvar, "NO_SUCH"), app.config_from_envvar("NO_SUCH", silent=True)


@question
def the_command_line_sets_too():
    app = Celery("x", set_as_current=False)
    found = app.config_from_cmdline(
        [
            "worker.prefetch_multiplier=7",
            "worker_concurrency=3",
            "task.always_eager=true",
            ".pool=solo",
            "task_serializer=yaml",
            'broker.transport_options=(json){"a": 1}',
            "my.own=(int)3",
        ],
        namespace="worker",
    )
    conf = app.conf
    return [
        found,
        conf.worker_prefetch_multiplier,
        conf.worker_concurrency,
        conf.task_always_eager,
        conf.worker_pool,
        conf.task_serializer,
        conf.broker_transport_options,
    ]


@question
def the_command_line_refuses():
    app = Celery("x", set_as_current=False)
    return error(app.config_from_cmdline, ["no equals"]), error(
        app.config_from_cmdline, ["worker.concurrency=(int)x"]
    )


@question
def old_names_are_new_names():
    app = app_of({"CELERY_TASK_SERIALIZER": "yaml", "BROKER_URL": "memory://", "CELERYD_CONCURRENCY": 3})
    conf = app.conf
    return (
        [conf.task_serializer, conf.broker_url, conf.worker_concurrency],
        [conf["CELERY_TASK_SERIALIZER"], conf.CELERYD_CONCURRENCY, conf["worker_concurrency"]],
        ["CELERYD_CONCURRENCY" in conf, "nope" in conf],
    )


@question
def styles_do_not_mix():
    return {
        "mostly new": error(
            lambda: app_of({"task_serializer": 1, "timezone": 1, "BROKER_URL": 1}).conf.timezone
        ),
        "mostly old": error(
            lambda: (
                app_of({"task_serializer": "json", "CELERY_TIMEZONE": None, "BROKER_URL": "x"}).conf.timezone
            )
        ),
        "both": app_of({"task_serializer": "yaml", "CELERY_TASK_SERIALIZER": "json"}).conf.task_serializer,
    }


@question
def constructor_arguments_do_not_count_as_a_style():
    app = Celery("x", broker="memory://", backend="cache+memory://", set_as_current=False)
    app.config_from_object({"CELERY_TASK_SERIALIZER": "yaml"})
    return app.conf.task_serializer, app.conf.broker_url


@question
def a_namespace_prefixes_new_names():
    app = app_of(
        {
            "CELERY_BROKER_URL": "memory://",
            "CELERY_TASK_ALWAYS_EAGER": True,
            "CELERY_WORKER_CONCURRENCY": 3,
            "CELERY_FOO": "mine",
            "BAR": "bare",
            "TIME_ZONE": "Europe/Berlin",
        },
        namespace="CELERY",
    )
    conf = app.conf
    return conf.broker_url, conf.task_always_eager, conf.worker_concurrency, conf.FOO, conf.BAR, conf.timezone


@question
def a_lower_case_namespace():
    conf = app_of({"celery_task_serializer": "yaml"}, namespace="celery").conf
    return conf.task_serializer


@question
def djangos_time_zone():
    return app_of({"TIME_ZONE": "Europe/Berlin"}).conf.timezone


@question
def who_wins():
    app = Celery("x", set_as_current=False, task_serializer="constructor")
    app.conf.timezone = "set before"
    app.add_defaults({"result_serializer": "first default", "my": 1})
    app.add_defaults({"result_serializer": "second default", "event_serializer": "default"})
    app.config_from_object(
        {
            "task_serializer": "source",
            "timezone": "source",
            "result_serializer": "source",
            "event_serializer": "source",
            "result_exchange": "source",
        }
    )
    conf = app.conf
    found = [
        conf.task_serializer,
        conf.timezone,
        conf.result_serializer,
        conf.event_serializer,
        conf.result_exchange,
    ]
    conf.result_exchange = "set after"
    return found, conf.result_exchange


@question
def the_environment_wins():
    os.environ["CELERY_BROKER_URL"] = "memory://env"
    os.environ["CELERY_RESULT_BACKEND"] = "cache+memory://env"
    try:
        app = Celery("x", broker="memory://arg", backend="cache+memory://", set_as_current=False)
        return (
            app.conf.broker_url,
            app.conf.result_backend,
            app.conf.broker_read_url,
            app.conf.broker_write_url,
        )
    finally:
        del os.environ["CELERY_BROKER_URL"], os.environ["CELERY_RESULT_BACKEND"]


@question
def reading_and_writing_urls():
    conf = Celery("x", broker="memory://b", broker_read_url="memory://r", set_as_current=False).conf
    return conf.broker_read_url, conf.broker_write_url, conf.broker_url


@question
def what_is_missing():
    conf = Celery("x", set_as_current=False).conf
    return error(lambda: conf["nope"]), error(lambda: conf.nope), conf.get("nope"), conf.get("nope", 3)


@question
def the_mapping_of_settings():
    app = app_of(Holder)
    conf = app.conf
    conf.update(result_serializer="yaml", my_other=2)
    conf.update({"timezone": "UTC"})
    return {
        "changes": {key: conf.changes[key] for key in ("result_serializer", "my_other", "timezone")},
        "setdefault": [
            conf.setdefault("my_third", 5) and conf.my_third,
            conf.setdefault("my_own", 9) and conf.my_own,
        ],
        "first": conf.first("nope", "task_serializer"),
        "parts": conf.get_by_parts("task", "serializer"),
        "set": [conf.value_set_for("task_serializer"), conf.value_set_for("event_serializer")],
        "value": [
            conf.find_value_for_key("serializer", "task"),
            conf.find_value_for_key("extended", "result"),
        ],
        "option": [list(conf.find_option("concurrency", "worker"))[:2]],
        "own": [conf.my_own, "my_own" in conf, conf.get("my_own")],
        "items": conf["task_serializer"] == dict(conf.items())["task_serializer"],
    }


@question
def the_table_hides_secrets():
    app = app_of(
        {
            "broker_url": "redis://user:sekrit@host/1",
            "result_backend": "redis://:sekrit@host/1",
            "security_key": "sekrit",
            "my_password": "sekrit",
            "my_api": "sekrit",
            "_private": "sekrit",
            "task_serializer": "yaml",
        }
    )
    table = app.conf.table(with_defaults=False, censored=True)
    kept = ("security_key", "my_password", "my_api", "_private", "task_serializer")
    return (
        {key: table.get(key) for key in kept},
        app.conf.table(censored=False)["security_key"],
        "sekrit" in app.conf.humanize(with_defaults=False, censored=True),
    )


@question
def a_pending_conf_is_lazy():
    app = Celery("x", set_as_current=False)
    conf = app.conf
    conf.update(task_serializer="yaml")
    conf.setdefault("timezone", "UTC")
    conf.my_own = 1
    configured = app.configured
    return (
        configured,
        "task_serializer" in conf,
        app.configured,
        conf.task_serializer,
        app.configured,
        conf.my_own,
    )


@question
def finding_by_section():
    found = [defaults.find("concurrency", "worker"), defaults.find("serializer", "task")]
    return [[section, key] for section, key, _ in found], error(defaults.find, "nope")


@question
def a_new_source_replaces_the_old_one():
    app = app_of({"task_serializer": "yaml", "timezone": "UTC"})
    first = app.conf.task_serializer
    app.config_from_object({"result_serializer": "yaml"})
    return first, app.conf.task_serializer, app.conf.result_serializer


@question
def deleting_and_clearing():
    app = app_of({"task_serializer": "yaml"})
    app.conf.task_serializer = "msgpack"
    before = app.conf.task_serializer
    app.conf.clear()
    return before, app.conf.task_serializer
