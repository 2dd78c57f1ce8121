"""Things for other packages."""
