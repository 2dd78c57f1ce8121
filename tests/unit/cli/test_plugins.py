"""What others add to the command line: commands of other packages."""

from __future__ import annotations

from pathlib import Path

import pytest

from celeriac.cli.main import run

Show = pytest.CaptureFixture[str]
PROGRAM = """
from celeriac import Celeriac

app = Celeriac("prog", broker="memory://{name}")
"""


@pytest.fixture
def name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the name of a module with such an app."""
    name = f"added_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(PROGRAM.format(name=name))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


def test_a_package_adds_a_command_that_gets_the_app(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Show
) -> None:
    metadata = tmp_path / "flora-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: flora\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[celery.commands]\nflora = flora_{name}:command\n")
    (tmp_path / f"flora_{name}.py").write_text(
        "import click\n"
        "@click.command('flora', help='Grow.')\n"
        "@click.option('--port', type=int)\n"
        "@click.pass_context\n"
        "def command(ctx, port):\n"
        "    click.echo(f'{ctx.obj.app.main} {port}')\n"
    )

    assert run(["-A", name, "flora", "--port", "5555"]) == 0
    assert capsys.readouterr().out == "prog 5555\n"
    assert run(["--help"]) == 0
    assert "flora" in capsys.readouterr().out
