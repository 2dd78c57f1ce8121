"""Result backends of other packages."""
