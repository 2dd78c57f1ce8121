"""Orders, and the mails that confirm them."""
