"""Redis as a broker."""

from celeriac.transports.redis.transport import RedisTransport

__all__ = ["RedisTransport"]
