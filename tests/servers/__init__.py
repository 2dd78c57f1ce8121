"""Private servers of the test run: Redis, RabbitMQ, PostgreSQL and memcached on loopback ports of their own.

Each keeps its data in a temporary directory of its own and never touches a server that was there before.
They start when a test first asks for them (`conftest.py` has the fixtures) and end with the run, also when
the run is killed (`watchdog`). A run in several processes has a set of servers for each of them, so that a
test may kill, freeze or fill the one it was given: `docs/decisions/020-a-suite-in-several-processes.md`.
"""

from servers.memcached import MemcachedServer
from servers.ports import free_port
from servers.postgres import PostgresServer
from servers.rabbitmq import RabbitServer
from servers.redis import RedisServer, SentinelServer
from servers.server import MissingServer, Server, ServerEnded, required, until

__all__ = [
    "MemcachedServer",
    "MissingServer",
    "PostgresServer",
    "RabbitServer",
    "RedisServer",
    "SentinelServer",
    "Server",
    "ServerEnded",
    "free_port",
    "required",
    "until",
]
