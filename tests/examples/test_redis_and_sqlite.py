"""Messages through Redis, results in a SQLite file."""

from __future__ import annotations

from mission import OpenShell
from processes import celery
from servers import RedisServer


def test_the_result_is_kept_in_the_database(open_shell: OpenShell, redis_server: RedisServer) -> None:
    shell = open_shell("redis_and_sqlite", CELERY_BROKER_URL=redis_server.fresh_url())
    worker = shell.start(*celery("-A", "tasks", "worker", "-l", "info"))
    worker.wait_for(r"\. tasks\.absoluteSub")
    worker.wait_for(r" ready\.")

    said = shell.python(
        "from tasks import absoluteSub\n"
        "result = absoluteSub.delay(3, 10)\n"
        "print(result.get(timeout=20), result.ready(), result.state)"
    )
    kept = shell.python(
        "import pickle, sqlite3\n"
        "query = 'SELECT status, result FROM celery_taskmeta'\n"
        "[(status, result)] = sqlite3.connect('db.sqlite3').execute(query)\n"
        "print(status, pickle.loads(result))"
    )

    assert said.split() == ["7", "True", "SUCCESS"]
    assert kept.split() == ["SUCCESS", "7"]
    assert worker.stop() == 0
