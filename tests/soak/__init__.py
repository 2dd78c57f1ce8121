"""Tens of thousands of random workflows on workers that are killed all the time: ``make canvas-soak``."""
