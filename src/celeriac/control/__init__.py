"""Remote control on the side of the worker: its commands, and the service that hears and answers them."""
