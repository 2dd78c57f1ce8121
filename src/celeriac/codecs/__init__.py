"""Values to bytes and back: serializers by name and content type, and compression."""

from celeriac.codecs.registry import Codec, Codecs

__all__ = ["Codec", "Codecs"]
