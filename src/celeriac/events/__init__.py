"""Events: what workers and clients tell of themselves and of tasks, for those who watch."""
