"""The other side of the interop tests: runs under real Celery, knows nothing of ours, answers questions.

As a program it reads ``[[operation, arguments], …]`` from stdin and writes the answers to stdout. As a module
it is the app of a real worker (``celery -A peer worker``). Values cross the border as their reprs, bytes as
base64, so that nothing depends on the serializers under test.
"""

import base64
import datetime
import decimal
import json
import os
import sys
import uuid

from kombu import compression, serialization

from celery import Celery, signature
from celery.result import AsyncResult

NAMES = {
    "datetime": datetime,
    "Decimal": decimal.Decimal,
    "UUID": uuid.UUID,
    "nan": float("nan"),
    "inf": float("inf"),
}

url = os.environ.get("PEER_REDIS_URL", "memory://")
app = Celery("peer", broker=url, backend=url if url != "memory://" else "cache+memory://")
app.conf.update(
    accept_content=["json", "yaml", "msgpack", "pickle"],
    result_extended=bool(os.environ.get("PEER_EXTENDED")),
    broker_connection_retry_on_startup=True,
)


class CustomError(Exception):
    pass


@app.task(bind=True, name="peer.echo")
def echo(self, *args, **kwargs):
    request = self.request
    return {
        "call": repr((args, kwargs)),
        "id": request.id,
        "root_id": request.root_id,
        "parent_id": request.parent_id,
        "group": request.group,
        "group_index": request.group_index,
        "retries": request.retries,
        "timelimit": request.timelimit,
        "origin": request.origin,
        "reply_to": request.reply_to,
        "correlation_id": request.correlation_id,
        "priority": request.delivery_info["priority"],
        "headers": request.headers,
        "stamps": request.stamps,
        "argsrepr": request.argsrepr,
    }


@app.task(name="peer.fail")
def fail(*args):
    raise CustomError(*args)


@app.task(name="peer.add")
def add(x, y):
    return x + y


def value_of(text):
    return eval(text, dict(NAMES))


def dumps(value, serializer):
    content_type, encoding, data = serialization.dumps(value_of(value), serializer)
    data = data.encode("utf-8") if isinstance(data, str) else data
    return {"content_type": content_type, "encoding": encoding, "data": base64.b64encode(data).decode()}


def loads(content_type, encoding, data, accept=None):
    value = serialization.loads(
        base64.b64decode(data),
        content_type,
        encoding,
        accept={content_type} if accept is None else set(accept),
    )
    return repr(value)


def compress(name, data):
    packed, mime = compression.compress(base64.b64decode(data), name)
    return {"mime": mime, "data": base64.b64encode(packed).decode()}


def decompress(name, data):
    return base64.b64encode(compression.decompress(base64.b64decode(data), name)).decode()


def backend_of(serializer):
    return Celery(
        "results", backend="cache+memory://", result_serializer=serializer, accept_content=[serializer]
    ).backend


def read_result(data, serializer="json"):
    backend = backend_of(serializer)
    task_id = str(uuid.uuid4())  # what is in memory is shared by all backends
    backend.set(backend.get_key_for_task(task_id), base64.b64decode(data))
    result = AsyncResult(task_id, backend=backend)
    value = result.result
    return {
        "state": result.state,
        "type": f"{type(value).__module__}.{type(value).__qualname__}",
        "value": repr(value),
        "args": repr(getattr(value, "args", None)),
        "traceback": result.traceback,
    }


def write_result(state, value=None, error=None, serializer="json"):
    backend = backend_of(serializer)
    if error is not None:
        value = error_of(*error)
    else:
        value = value_of(value)
    task_id = str(uuid.uuid4())
    backend.store_result(task_id, value, state, traceback="Traceback …\n" if error else None)
    data = backend.get(backend.get_key_for_task(task_id))
    data = data.encode() if isinstance(data, str) else data
    return base64.b64encode(data).decode()


def error_of(module, name, args):
    __import__(module)
    return getattr(sys.modules[module], name)(*value_of(args))


def unpickle(data):
    import pickle

    value = pickle.loads(base64.b64decode(data))
    return {"type": f"{type(value).__module__}.{type(value).__qualname__}", "value": repr(value)}


def pickle_signature():
    import pickle

    value = [signature("t", args=(1, 2)), signature("a") | signature("b")]
    return base64.b64encode(pickle.dumps(value)).decode()


def secure(key, cert, store, digest="sha256", serializer="json"):
    secured = Celery("secured", broker="memory://", task_serializer="auth", accept_content=["auth"])
    secured.setup_security(key=key, cert=cert, store=store, digest=digest, serializer=serializer)
    return True


def send(task, args, kwargs, options):
    app.send_task(task, args=value_of(args), kwargs=value_of(kwargs), **options)
    return True


if __name__ == "__main__":
    serialization.enable_insecure_serializers()
    answers = []
    for operation, arguments in json.load(sys.stdin):
        try:
            answers.append(globals()[operation](**arguments))
        except Exception as exc:
            answers.append({"error": f"{type(exc).__module__}.{type(exc).__qualname__}", "text": str(exc)})
    print(json.dumps(answers))
