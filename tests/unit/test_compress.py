"""Compression: Celery's names and formats, no bombs."""

from __future__ import annotations

import bz2
import lzma
import tracemalloc
import zlib

import brotli
import pytest
import zstandard

from celeriac.codecs.compress import compress, decompress
from celeriac.errors import ConfigError, DecodeError

TEXT = b"the quick brown fox " * 50
MIME = {
    "zlib": "application/x-gzip",
    "gzip": "application/x-gzip",
    "bzip2": "application/x-bz2",
    "bzip": "application/x-bz2",
    "lzma": "application/x-lzma",
    "xz": "application/x-lzma",
    "brotli": "application/x-brotli",
    "zstd": "application/zstd",
    "zstandard": "application/zstd",
}
FORMATS = ["zlib", "bzip2", "lzma", "brotli", "zstd"]
LIBRARY = {
    "zlib": zlib.decompress,
    "bzip2": bz2.decompress,
    "lzma": lzma.decompress,
    "brotli": brotli.decompress,
    "zstd": lambda data: zstandard.ZstdDecompressor().decompress(data),
}


@pytest.mark.parametrize(("name", "mime"), MIME.items())
def test_every_alias_announces_its_mime_type_and_is_read_by_both(name: str, mime: str) -> None:
    packed, announced = compress(name, TEXT)

    assert announced == mime
    assert len(packed) < len(TEXT)
    assert decompress(name, packed, max_bytes=len(TEXT)) == TEXT
    assert decompress(mime, packed, max_bytes=len(TEXT)) == TEXT
    assert compress(mime, TEXT)[1] == mime


@pytest.mark.parametrize("name", FORMATS)
def test_the_formats_are_the_ones_of_the_libraries(name: str) -> None:
    assert LIBRARY[name](compress(name, TEXT)[0]) == TEXT


@pytest.mark.parametrize("name", FORMATS)
def test_nothing_at_all_can_be_compressed(name: str) -> None:
    assert decompress(name, compress(name, b"")[0], max_bytes=0) == b""


@pytest.mark.parametrize("name", FORMATS)
def test_a_bomb_is_refused_without_unpacking_it(name: str) -> None:
    bomb = compress(name, bytes(30_000_000))[0]

    tracemalloc.start()
    with pytest.raises(DecodeError, match="50000 bytes"):
        decompress(name, bomb, max_bytes=50_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < 15_000_000  # xz wants a window of 8 MiB


def test_a_zstd_frame_without_its_size_is_read_within_the_limit() -> None:
    packed = zstandard.ZstdCompressor(write_content_size=False).compress(TEXT)

    assert decompress("zstd", packed, max_bytes=len(TEXT)) == TEXT
    with pytest.raises(DecodeError):
        decompress("zstd", packed, max_bytes=len(TEXT) - 1)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("damage", ["cut", "noise", "empty"])
def test_damaged_streams_are_decode_errors(name: str, damage: str) -> None:
    packed = compress(name, TEXT)[0]
    broken = {"cut": packed[:-5], "noise": b"\x00\x01noise" + packed, "empty": b""}[damage]

    with pytest.raises(DecodeError):
        decompress(name, broken, max_bytes=1_000_000)


def test_unknown_names_are_told_apart_by_who_gave_them() -> None:
    with pytest.raises(ConfigError, match="No such compression: 'rar'"):
        compress("rar", b"")
    with pytest.raises(DecodeError, match="No such compression: 'rar'"):
        decompress("rar", b"", max_bytes=10)
