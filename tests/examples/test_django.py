"""Django: a request enqueues, and a worker sends the mail."""

from __future__ import annotations

import requests

from mission import OpenShell, SmtpSink
from servers.ports import free_port


def test_an_order_is_confirmed_by_mail_and_one_that_is_rolled_back_is_not(
    open_shell: OpenShell, mail: SmtpSink
) -> None:
    shell = open_shell("django", EMAIL_HOST="127.0.0.1", EMAIL_PORT=str(mail.port))
    shell.run("python", "manage.py", "migrate", "-v", "0")
    port = free_port()
    server = shell.start("python", "manage.py", "runserver", "--noreload", f"127.0.0.1:{port}")
    worker = shell.start(
        "python", "manage.py", "celery", "-A", "shop", "worker", "-B", "-l", "info", "-c", "1"
    )
    server.wait_for(r"Quit the server")
    url = f"http://127.0.0.1:{port}/orders/"

    refused = requests.post(url, {"email": "ada@example.com", "article": "the moon"}, timeout=30)
    taken = requests.post(url, {"email": "ada@example.com", "article": "a telescope"}, timeout=30)

    recipients, text = mail.messages.get(timeout=60)
    assert (refused.status_code, taken.status_code) == (409, 202)
    assert recipients == ["ada@example.com"]
    assert "Subject: Your order of a telescope" in text
    worker.wait_for(r"Task orders\.tasks\.confirm\[.*\] succeeded")
    shell.run("python", "manage.py", "celery", "-A", "shop", "schedule", "run-now", "each morning")
    recipients, text = mail.messages.get(timeout=60)
    assert recipients == ["shop@example.com"]
    assert "Subject: Orders: 1" in text
    assert worker.stop() == 0
    assert mail.messages.empty()
