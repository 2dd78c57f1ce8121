"""The demo's tasks: fetch a page, count a file, add the counts up."""

import ast
import urllib.request
from pathlib import Path

from celeriac import Celeriac

app = Celeriac("demo")  # no broker configured: messages and results live in an embedded SQLite file


@app.task
def fetch(url: str) -> tuple[str, int]:
    """Fetch a page and return its title and its size in bytes."""
    with urllib.request.urlopen(url, timeout=30) as response:
        page = response.read()
    title = page.partition(b"<title>")[2].partition(b"</title>")[0]
    return title.decode(), len(page)


@app.task
def count(path: str) -> dict[str, int]:
    """Count the lines, functions and classes of a Python module."""
    source = Path(path).read_bytes()
    found = {"modules": 1, "lines": source.count(b"\n"), "functions": 0, "classes": 0}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found["functions"] += 1
        elif isinstance(node, ast.ClassDef):
            found["classes"] += 1
    return found


@app.task
def add_up(counts: list[dict[str, int]]) -> dict[str, int]:
    """Add the counts of many modules together."""
    return {key: sum(one[key] for one in counts) for key in counts[0]}
