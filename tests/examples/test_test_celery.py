"""A simple demo project: RabbitMQ with a user and a vhost of its own, results by rpc."""

from __future__ import annotations

import re

import pytest

from mission import OpenShell
from processes import celery
from servers import RabbitServer


def add_jimmy(server: RabbitServer) -> None:
    """Step 2 of the document."""
    server.add_user("jimmy", "jimmy123", "jimmy_tag")
    server.add_vhost("jimmy_vhost")
    server.allow("jimmy", "jimmy_vhost")


def test_the_result_comes_back_by_rpc(open_shell: OpenShell, rabbitmq_server: RabbitServer) -> None:
    add_jimmy(rabbitmq_server)
    shell = open_shell(
        "test_celery", CELERY_BROKER_URL=f"amqp://jimmy:jimmy123@{rabbitmq_server.address}/jimmy_vhost"
    )
    worker = shell.start(*celery("-A", "test_celery", "worker", "--loglevel=info"))
    worker.wait_for(r" ready\.")

    said = shell.run("python", "-m", "test_celery.run_tasks")

    words = re.findall(r"Task (?:finished\?|result:)\s+(\S+)", said)
    assert words == ["False", "None", "True", "3"]
    worker.wait_for(r"transport: +amqp://jimmy:\*\*@")
    assert "jimmy123" not in worker.output
    worker.wait_for(r"WARNING/ForkPoolWorker-\d+\] long time task begins")
    worker.wait_for(r"WARNING/ForkPoolWorker-\d+\] long time task finished")
    worker.wait_for(r"Task test_celery\.tasks\.longtime_add\[.*\] succeeded in 5\.\d+s: 3")
    assert worker.stop() == 0


@pytest.mark.parametrize("question", [("worker", "--help"), ("help",)])
def test_the_command_explains_itself(open_shell: OpenShell, question: tuple[str, ...]) -> None:
    shell = open_shell("test_celery")

    said = shell.run(*celery(*question))

    assert "Usage: celery" in said
    assert "worker" in said
