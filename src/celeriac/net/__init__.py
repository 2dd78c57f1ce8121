"""Bytes and servers: addresses, reconnection, and sync drivers made awaitable."""
