"""Compression of message bodies: Celery's names and formats, and no bomb ever unpacked."""

from __future__ import annotations

import importlib
import zlib
from collections.abc import Callable
from types import ModuleType
from typing import Final

from celeriac.errors import ConfigError, DecodeError

_LZMA_MEMORY_BYTES: Final = 256 * 1024 * 1024  # enough for xz -9 (65 MiB); a header may claim 4 GiB

GZIP: Final = "application/x-gzip"  # a zlib stream in spite of its name
BZIP2: Final = "application/x-bz2"
LZMA: Final = "application/x-lzma"
BROTLI: Final = "application/x-brotli"
ZSTD: Final = "application/zstd"

_MIMES: Final = {
    "zlib": GZIP,
    "gzip": GZIP,
    "bzip2": BZIP2,
    "bzip": BZIP2,
    "lzma": LZMA,
    "xz": LZMA,
    "brotli": BROTLI,
    "zstd": ZSTD,
    "zstandard": ZSTD,
    **{mime: mime for mime in (GZIP, BZIP2, LZMA, BROTLI, ZSTD)},
}


def compress(name: str, data: bytes) -> tuple[bytes, str]:
    """Return the compressed bytes and the mime type to announce them with.

    Args:
        name: zlib, gzip, bzip2, bzip, lzma, xz, brotli, zstd, zstandard, or one of their mime types.
        data: The serialized body.

    Raises:
        ConfigError: No such compression, or the package it needs is not installed.
    """
    mime = _MIMES.get(name)
    if mime is None:
        raise ConfigError(_unknown(name))
    return _COMPRESSORS[mime](data), mime


def decompress(name: str, data: bytes, *, max_bytes: int) -> bytes:
    """Return the original bytes.

    Args:
        name: As the ``compression`` header has it: a mime type or one of its short names.
        data: Compressed bytes.
        max_bytes: The most that may come out; memory use stays below about twice of it.

    Raises:
        DecodeError: Not in that format, cut short, or larger than ``max_bytes``.
        ConfigError: The package it needs is not installed.
    """
    mime = _MIMES.get(name)
    if mime is None:
        raise DecodeError(_unknown(name))
    return _DECOMPRESSORS[mime](data, max_bytes)


def _unknown(name: str) -> str:
    return f"No such compression: {name!r}. Known are {', '.join(sorted(_MIMES))}."


def _too_large(max_bytes: int) -> DecodeError:
    return DecodeError(f"Compressed body is larger than {max_bytes} bytes when decompressed")


def _cut_short(what: str) -> DecodeError:
    return DecodeError(f"Compressed body is cut short: the {what} stream has no end")


def _decompress_zlib(data: bytes, max_bytes: int) -> bytes:
    stream = zlib.decompressobj()
    try:
        plain = stream.decompress(data, max_bytes + 1)
    except zlib.error as exc:
        raise DecodeError(f"Compressed body is no zlib stream: {exc}") from exc
    if len(plain) > max_bytes:
        raise _too_large(max_bytes)
    if not stream.eof:
        raise _cut_short("zlib")
    return plain


def _decompress_bz2(data: bytes, max_bytes: int) -> bytes:
    stream = _bz2().BZ2Decompressor()
    try:
        plain: bytes = stream.decompress(data, max_bytes + 1)
    except (OSError, ValueError) as exc:
        raise DecodeError(f"Compressed body is no bzip2 stream: {exc}") from exc
    if len(plain) > max_bytes:
        raise _too_large(max_bytes)
    if not stream.eof:
        raise _cut_short("bzip2")
    return plain


def _decompress_lzma(data: bytes, max_bytes: int) -> bytes:
    lzma = _lzma()
    stream = lzma.LZMADecompressor(memlimit=_LZMA_MEMORY_BYTES)
    try:
        plain: bytes = stream.decompress(data, max_bytes + 1)
    except lzma.LZMAError as exc:
        raise DecodeError(f"Compressed body is no xz stream: {exc}") from exc
    if len(plain) > max_bytes:
        raise _too_large(max_bytes)
    if not stream.eof:
        raise _cut_short("xz")
    return plain


def _package(module: str, what: str, remedy: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as exc:
        raise ConfigError(f"Compression {what} needs the module {module}: {remedy}") from exc


def _bz2() -> ModuleType:
    return _package("bz2", "bzip2", "this Python was built without it")


def _lzma() -> ModuleType:
    return _package("lzma", "lzma", "this Python was built without it")


def _brotli() -> ModuleType:
    return _package("brotli", "brotli", "pip install celeriac[brotli]")


def _zstd() -> ModuleType:
    return _package("zstandard", "zstd", "pip install celeriac[zstd]")


def _compress_bz2(data: bytes) -> bytes:
    compressed: bytes = _bz2().compress(data)
    return compressed


def _compress_lzma(data: bytes) -> bytes:
    compressed: bytes = _lzma().compress(data)
    return compressed


def _compress_brotli(data: bytes) -> bytes:
    compressed: bytes = _brotli().compress(data, quality=5)  # 8 ms for 80 kB; its default, 11, takes 240 ms
    return compressed


def _decompress_brotli(data: bytes, max_bytes: int) -> bytes:
    brotli = _brotli()
    stream = brotli.Decompressor()
    pieces: list[bytes] = []
    size = 0
    try:
        piece = stream.process(data, output_buffer_limit=max_bytes + 1)
        while True:
            pieces.append(piece)
            size += len(piece)
            if size > max_bytes:
                raise _too_large(max_bytes)
            if stream.is_finished():
                return b"".join(pieces)
            if stream.can_accept_more_data():
                raise _cut_short("brotli")
            piece = stream.process(b"", output_buffer_limit=max_bytes + 1 - size)
    except brotli.error as exc:
        raise DecodeError(f"Compressed body is no brotli stream: {exc}") from exc


def _compress_zstd(data: bytes) -> bytes:
    compressed: bytes = _zstd().ZstdCompressor(write_content_size=True).compress(data)
    return compressed


def _decompress_zstd(data: bytes, max_bytes: int) -> bytes:
    zstd = _zstd()
    try:
        claimed = zstd.frame_content_size(data)
        if claimed > max_bytes:
            raise _too_large(max_bytes)
        # With no size in the frame (-1) the library takes our limit instead of asking the frame.
        plain: bytes = zstd.ZstdDecompressor().decompress(data, max_output_size=max_bytes)
    except zstd.ZstdError as exc:
        raise DecodeError(f"Compressed body is no zstd frame of at most {max_bytes} bytes: {exc}") from exc
    return plain


_COMPRESSORS: Final[dict[str, Callable[[bytes], bytes]]] = {
    GZIP: zlib.compress,
    BZIP2: _compress_bz2,
    LZMA: _compress_lzma,
    BROTLI: _compress_brotli,
    ZSTD: _compress_zstd,
}
_DECOMPRESSORS: Final[dict[str, Callable[[bytes, int], bytes]]] = {
    GZIP: _decompress_zlib,
    BZIP2: _decompress_bz2,
    LZMA: _decompress_lzma,
    BROTLI: _decompress_brotli,
    ZSTD: _decompress_zstd,
}
