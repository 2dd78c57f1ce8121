"""The serializers of one app, by name and by content type."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec

from celeriac.codecs import msgpacked, yamltext
from celeriac.codecs.jsontext import JsonCodec
from celeriac.errors import CodecError, ConfigError, ContentRefused, DecodeError, EncodeError

JSON: Final = "application/json"
PICKLE: Final = "application/x-python-serialize"
YAML: Final = "application/x-yaml"
MSGPACK: Final = "application/x-msgpack"
RAW: Final = "application/data"  # also what no content type at all means
TEXT: Final = "text/plain"
TEXT_ALIAS: Final = "application/text"

TRUSTED: Final = frozenset(
    {RAW, TEXT_ALIAS}
)  # taken whatever `accept_content` lists: they decode to themselves
_PICKLED: Final = "celeriac.codecs.pickled"  # loaded when first used: 4 ms that few programs need
_BINARY: Final = frozenset({"binary", "ascii-8bit"})


class Codec(msgspec.Struct, frozen=True, kw_only=True):
    """One serializer."""

    name: str
    content_type: str
    content_encoding: str
    encode: Callable[[Any], bytes | str]  # Any: the user's value
    decode: Callable[[Any], Any]  # takes bytes, or str when ``wants_text``
    wants_text: bool = False
    runs_code: bool = False  # decoding hostile bytes may run code of their choice (pickle)


class Codecs:
    """Encodes and decodes by serializer name and content type; one per app.

    Knows json, pickle, yaml, msgpack, raw and text from the beginning; the packages behind yaml and msgpack
    are imported when they are first used. Safe for threads once no more serializers are registered.
    """

    def __init__(self) -> None:
        self.json: JsonCodec = JsonCodec()
        self.json_is_built_in: bool = True  # nobody has registered a serializer in its place
        self._by_name: dict[str, Codec] = {}
        self._by_type: dict[str, Codec] = {}
        for codec in _built_in(self.json):
            self._by_name[codec.name] = self._by_type[codec.content_type] = codec
        self._by_type[TEXT_ALIAS] = self._by_type[TEXT]

    def add(self, codec: Codec) -> None:
        """Take in a serializer; it replaces another one of its name and of its content type."""
        self._by_name[codec.name] = self._by_type[codec.content_type] = codec
        if codec.name == "json" or codec.content_type == JSON:
            self.json_is_built_in = False

    def register(
        self,
        name: str,
        encoder: Callable[[Any], bytes | str],  # Any: the user's value
        decoder: Callable[[Any], Any],
        content_type: str,
        content_encoding: str = "utf-8",
    ) -> None:
        """Add a serializer of the user's own, on the terms of ``kombu.serialization.register``.

        Args:
            name: What settings call it.
            encoder: Value to bytes or text.
            decoder: Back again; gets text, or bytes when the encoding is ``binary``.
            content_type: Mime type that messages carry.
            content_encoding: Character set of the text, or ``binary``.
        """
        self.add(
            Codec(
                name=name,
                content_type=content_type,
                content_encoding=content_encoding,
                encode=encoder,
                decode=decoder,
                wants_text=content_encoding not in _BINARY,
            )
        )

    def content_type(self, name: str) -> str:
        """Return the mime type of a serializer.

        Raises:
            ConfigError: No serializer has that name.
        """
        codec = self._by_name.get(name)
        if codec is None:
            raise ConfigError(self._unknown(name))
        return codec.content_type

    def name_of(self, content_type: str) -> str | None:
        """Return the name of the serializer behind a mime type, or None."""
        codec = self._by_type.get(content_type)
        return codec.name if codec is not None else None

    def accept_set(self, names: Iterable[str]) -> frozenset[str]:
        """Return the mime types of what ``accept_content`` lists by name or by mime type.

        Raises:
            ConfigError: A name belongs to no serializer.
        """
        return frozenset(name if "/" in name else self.content_type(name) for name in names)

    def encode(self, value: Any, serializer: str) -> tuple[str, str, bytes]:  # Any: the user's value
        """Return content type, content encoding and bytes of a value.

        Raises:
            EncodeError: The value has no form in that serializer, or the serializer is unknown.
            ConfigError: The package behind the serializer is not installed.
        """
        codec = self._by_name.get(serializer)
        if codec is None:
            raise EncodeError(self._unknown(serializer))
        try:
            data = codec.encode(value)
            if isinstance(data, str):
                data = data.encode(codec.content_encoding)
        except (CodecError, ConfigError):
            raise
        except Exception as exc:  # an encoder runs the code of the values it meets
            raise EncodeError(exc) from exc
        return codec.content_type, codec.content_encoding, data

    def decode(
        self,
        data: bytes,
        content_type: str | None,
        content_encoding: str | None,
        accept: frozenset[str] | None = None,
    ) -> Any:  # Any: whatever the sender wrote
        """Return the value of some bytes.

        Args:
            data: What was received, decompressed.
            content_type: As received; None means raw.
            content_encoding: As received.
            accept: Mime types that are welcome (`accept_set`); None refuses only what could run code.

        Raises:
            ContentRefused: The content type is not welcome; nothing was decoded.
            DecodeError: The bytes are not what the content type says.
        """
        content_type = content_type or RAW
        codec = self._by_type.get(content_type)
        if accept is None:
            if codec is not None and codec.runs_code:
                raise ContentRefused(
                    f"Refusing to deserialize disabled content of type {codec.name} ({content_type})"
                )
        elif content_type not in accept and content_type not in TRUSTED:
            name = codec.name if codec is not None and codec.content_type != TEXT else content_type
            raise ContentRefused(f"Refusing to deserialize untrusted content of type {name} ({content_type})")
        if codec is None:
            raise DecodeError(f"No decoder installed for content type {content_type}")
        try:
            if codec.wants_text and content_encoding not in _BINARY:
                return codec.decode(data.decode(content_encoding or "utf-8"))
            return codec.decode(data)
        except CodecError:
            raise
        except Exception as exc:  # a decoder can run code (pickle) and that can raise anything
            raise DecodeError(exc) from exc

    def _unknown(self, name: str) -> str:
        close = difflib.get_close_matches(name, self._by_name, n=1)
        hint = f" Did you mean {close[0]}?" if close else ""
        return f"No encoder/decoder installed for {name}: known are {', '.join(sorted(self._by_name))}.{hint}"


def _as_it_is(value: Any) -> Any:
    return value


def _pickle(value: Any) -> bytes:
    pickled: bytes = importlib.import_module(_PICKLED).encode(value)
    return pickled


def _unpickle(data: bytes) -> Any:
    return importlib.import_module(_PICKLED).decode(data)


def _raw_bytes(value: Any) -> bytes:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    raise EncodeError(TypeError(f"Can only encode bytes as raw, not {type(value).__name__}"))


def _plain_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    raise EncodeError(TypeError(f"Can only encode str as text, not {type(value).__name__}"))


def _built_in(json: JsonCodec) -> tuple[Codec, ...]:
    return (
        Codec(
            name="json", content_type=JSON, content_encoding="utf-8", encode=json.encode, decode=json.decode
        ),
        Codec(
            name="pickle",
            content_type=PICKLE,
            content_encoding="binary",
            encode=_pickle,
            decode=_unpickle,
            runs_code=True,
        ),
        Codec(
            name="yaml",
            content_type=YAML,
            content_encoding="utf-8",
            encode=yamltext.encode,
            decode=yamltext.decode,
            wants_text=True,
        ),
        Codec(
            name="msgpack",
            content_type=MSGPACK,
            content_encoding="binary",
            encode=msgpacked.encode,
            decode=msgpacked.decode,
        ),
        Codec(
            name="raw",
            content_type=RAW,
            content_encoding="binary",
            encode=_raw_bytes,
            decode=_as_it_is,
            wants_text=True,
        ),
        Codec(
            name="text",
            content_type=TEXT,
            content_encoding="utf-8",
            encode=_plain_text,
            decode=_as_it_is,
            wants_text=True,
        ),
    )
