"""How a node is: asked over HTTP by those who supervise it."""
