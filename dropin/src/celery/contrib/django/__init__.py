"""Things for Django."""
