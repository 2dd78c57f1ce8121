"""One of the simplest applications one can make: no configuration file, RabbitMQ as guest."""

from __future__ import annotations

from mission import OpenShell
from processes import celery
from servers import RabbitServer


def test_hello_world(open_shell: OpenShell, rabbitmq_server: RabbitServer) -> None:
    shell = open_shell("hello", CELERY_BROKER_URL=f"amqp://guest@{rabbitmq_server.address}//")
    worker = shell.start(*celery("-A", "hello", "worker", "-l", "info"))
    worker.wait_for(r" ready\.")

    shell.python("from hello import hello; hello.delay()")

    worker.wait_for(r"Task hello\.hello\[.*\] succeeded in [\d.e-]+s: 'hello world'")
    assert worker.stop() == 0
