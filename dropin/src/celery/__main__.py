"""``python -m celery``."""

from __future__ import annotations

from celery.bin.celery import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
