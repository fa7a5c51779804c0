"""The `ebert` command: five stops of one road, and a demo that walks it."""

from __future__ import annotations

import inspect
from typing import Annotated

import typer

from ebert_cli import demo, evaluate, explain, finetune, merge, predict, prepare, pretrain, variants
from ebert_core import __version__

app = typer.Typer(
    name="ebert",
    help="Epigenomic BERT: a language model of DNA and chromatin states that says where transcription factors bind.\n\n"
    "The road: prepare -> pretrain -> finetune -> predict -> evaluate. Each command finds the last one's output in the "
    "working folder. `ebert demo` walks it in minutes on a simulated genome.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"ebert {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", "-V", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


for command in (prepare, pretrain, finetune, predict, merge, evaluate, explain, variants, demo):
    # A terminal wraps paragraphs anew; the line ends of the source would stay in the middle of its lines.
    paragraphs = (inspect.getdoc(command.run) or "").split("\n\n")
    app.command(command.NAME, help="\n\n".join(" ".join(text.split()) for text in paragraphs))(command.run)


def main() -> None:
    """Entry point of the `ebert` script and of `python -m ebert_cli`."""
    app(prog_name="ebert")
