"""Introduction to Celery: a Django project that sends mail in the background."""

from __future__ import annotations

from mission import OpenShell, Shell, SmtpSink
from processes import celery
from servers import RabbitServer

DIRECT = "from celery_demo.celery import send_email; send_email()"
DELAYED = "from celery_demo.celery import send_email; send_email.delay()"


def test_the_function_itself_still_sends_mail(open_shell: OpenShell, mail: SmtpSink) -> None:
    shell = open_shell("celery_demo", EMAIL_HOST="127.0.0.1", EMAIL_PORT=str(mail.port))

    said = shell.run("python", "manage.py", "shell", "-c", DIRECT)

    recipients, text = mail.messages.get(timeout=10)
    assert "Email is sent" in said
    assert recipients == ["jrahmonov2@gmail.com"]
    assert "Subject: Subject" in text


def test_the_mail_is_sent_by_the_worker_without_any_server(open_shell: OpenShell, mail: SmtpSink) -> None:
    shell = open_shell("celery_demo", EMAIL_HOST="127.0.0.1", EMAIL_PORT=str(mail.port))

    the_worker_sends_the_mail(shell, mail)


def test_the_mail_is_sent_by_the_worker_through_rabbitmq(
    open_shell: OpenShell, mail: SmtpSink, rabbitmq_server: RabbitServer
) -> None:
    shell = open_shell(
        "celery_demo",
        EMAIL_HOST="127.0.0.1",
        EMAIL_PORT=str(mail.port),
        CELERY_BROKER_URL=rabbitmq_server.fresh_url(),
    )

    the_worker_sends_the_mail(shell, mail)


def the_worker_sends_the_mail(shell: Shell, mail: SmtpSink) -> None:
    worker = shell.start(*celery("-A", "celery_demo", "worker", "-l", "info"))
    worker.wait_for(r"\. celery_demo\.celery\.send_email")  # under [tasks] in the banner
    worker.wait_for(r" ready\.")

    shell.run("python", "manage.py", "shell", "-c", DELAYED)

    recipients, _ = mail.messages.get(timeout=20)
    assert recipients == ["jrahmonov2@gmail.com"]
    worker.wait_for(r"INFO/MainProcess\] Task celery_demo\.celery\.send_email\[[0-9a-f-]{36}\] received")
    worker.wait_for(r"WARNING/ForkPoolWorker-\d+\] Email is sent")
    worker.wait_for(
        r"INFO/ForkPoolWorker-\d+\] Task celery_demo\.celery\.send_email\[.*\] succeeded in [\d.e-]+s: None"
    )
    assert worker.stop() == 0
