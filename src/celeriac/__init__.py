"""Celeriac: a distributed task queue that needs no server to begin with."""
