"""Pools whose slots share one process beside the node's: coroutines and greenlets."""
