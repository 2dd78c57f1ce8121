"""What tasks print becomes log records, a line each, and never an endless loop."""

from __future__ import annotations

import io
import logging

import pytest

from celeriac.cli.logs import ColourFormatter, PrintedLines, level_of


class Collected(logging.Handler):
    """Keeps the records' texts."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


def logger_with(handler: logging.Handler) -> logging.Logger:
    logger = logging.getLogger(f"printed-{id(handler)}")
    logger.propagate = False
    logger.addHandler(handler)
    return logger


def test_a_printed_line_is_one_record_however_it_was_written() -> None:
    handler = Collected()
    stream = PrintedLines(logger_with(handler), logging.WARNING, None)

    print("a", 1, file=stream)
    print("two\nlines", file=stream)
    stream.write("no newline ")
    stream.flush()

    assert handler.texts == ["a 1", "two", "lines", "no newline"]


def test_bytes_are_refused_as_by_any_text_stream() -> None:
    stream = PrintedLines(logging.getLogger("bytes"), logging.WARNING, None)

    with pytest.raises(TypeError, match="must be str, not bytes"):
        stream.write(b"")  # type: ignore[arg-type]  # how click asks whether a stream takes bytes


def test_a_handler_that_prints_does_not_loop() -> None:
    original = io.StringIO()

    class Printing(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            stream.write(f"handled {record.getMessage()}\n")

    stream = PrintedLines(logger_with(Printing()), logging.WARNING, original)

    stream.write("hello\n")

    assert original.getvalue() == "handled hello\n"


def test_colours_are_whole_lines_by_level() -> None:
    record = logging.LogRecord("x", logging.ERROR, __file__, 1, "boom", (), None)

    assert ColourFormatter("%(message)s", colour=True).format(record) == "\x1b[1;31mboom\x1b[0m"
    assert ColourFormatter("%(message)s", colour=False).format(record) == "boom"


def test_levels_go_by_name_in_any_case_or_number() -> None:
    assert level_of("info") == level_of("INFO") == level_of("20") == logging.INFO
    assert level_of("FATAL") == logging.CRITICAL
    with pytest.raises(ValueError, match="DEBUG, INFO, WARNING"):
        level_of("loud")
