"""Hundreds of thousands of calls under which no process may grow: ``make soak``."""
