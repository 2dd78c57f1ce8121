"""Running one job, and deciding what becomes of its message."""
