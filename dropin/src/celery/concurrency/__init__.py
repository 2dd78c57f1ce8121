"""The pools of workers, as far as programs see them."""
