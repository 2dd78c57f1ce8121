"""The node: takes messages from the broker, has them run by a pool, and settles them."""
