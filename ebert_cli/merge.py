"""`ebert merge`: the files of one prediction from its shards."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ebert_cli import options
from ebert_cli.console import ConsoleReporter, guarded
from ebert_cli.predict import print_written

NAME = "merge"


@guarded
def run(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(help="Folders of shards, or shards themselves. Default: predictions/.", show_default=False),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder for the files of TF.CELL. Default: the first one named."),
    ] = None,
    dataset: Annotated[
        Path, typer.Option("--dataset", "-d", help="Dataset that was predicted on; only a submission needs it.")
    ] = Path("dataset"),
    overwrite: options.OverwriteOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Join what runs of `ebert predict --shard I/N` scored into the files that a single run writes.

    The shards stay as they are.
    """
    from ebert_core.data.dataset import Dataset
    from ebert_core.inference.journal import is_journal
    from ebert_core.inference.merge import find_shards, merge_shards

    folders = folders or [Path("predictions")]
    found = find_shards(folders)
    into = output or (folders[0].absolute().parent if is_journal(folders[0]) else folders[0])
    reporter = ConsoleReporter(quiet)
    for shards in found:
        reporter.log(f"{shards.name}: {len(shards.folders)} shards")
        opened = Dataset.open(dataset) if "dream" in shards.job.settings.formats else None
        written = merge_shards(shards, into, opened, reporter, overwrite=overwrite)
        if not quiet:
            print_written(written)
