"""The table of the outbox, version by version."""
