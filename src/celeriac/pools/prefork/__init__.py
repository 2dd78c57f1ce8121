"""A pool of processes: a small forker that makes them, an inbox and an outbox for each, a board for all."""
