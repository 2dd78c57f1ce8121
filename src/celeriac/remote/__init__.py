"""Remote control from a client: commands to all workers or some, and their answers."""
