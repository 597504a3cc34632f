"""Values to bytes and back."""

from callcast.codecs.json_codec import JsonCodec

__all__ = ["JsonCodec"]
