"""Options that several commands share, so that they are spelt and explained alike."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ebert_cli.console import require_some

if TYPE_CHECKING:
    from ebert_core.genome.assembly import Assembly
    from ebert_core.genome.regions import Region
    from ebert_core.model.device import Device

DatasetOption = Annotated[Path, typer.Option("--dataset", "-d", help="Dataset folder made by `ebert prepare`.")]
DeviceOption = Annotated[
    str, typer.Option("--device", help="auto, cpu, cuda or cuda:0. auto takes a GPU where there is one.")
]
PrecisionOption = Annotated[
    str, typer.Option("--precision", help="auto, bf16 or fp32. auto takes bf16 where the device is fast at it.")
]
ThreadsOption = Annotated[
    int | None, typer.Option("--threads", min=1, help="CPU threads. Default: all cores the process may use.")
]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace an existing output.")]
ResumeOption = Annotated[bool, typer.Option("--resume", help="Go on with an unfinished run of the same command.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but warnings and errors.")]
ConfigOption = Annotated[Path | None, typer.Option("--config", help="TOML file with settings.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="One setting, for example optimizer.learning_rate=3e-4; may be repeated."),
]
SeedOption = Annotated[int | None, typer.Option("--seed", min=0, help="Seed of everything random.")]


def use_device(name: str, precision: str, threads: int | None) -> Device:
    """Import torch with quiet threads, and choose the device."""
    import os

    # How long a waiting thread spins before it sleeps (read by libgomp when torch loads). Without a bound two busy
    # processes on the same cores are up to 11 times slower than one; without any spinning a tiny model on quiet cores
    # waits for wake-ups and is 1.9 times slower (docs/lab-notes.md).
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    from ebert_core.errors import EbertError
    from ebert_core.model.device import choose_device, keep_freed_memory, set_threads

    if precision not in ("auto", "bf16", "fp32"):
        raise EbertError(f"unknown precision {precision!r}", "use auto, bf16 or fp32")
    set_threads(threads)
    keep_freed_memory()
    return choose_device(name, precision)  # type: ignore[arg-type]


def parse_regions(texts: list[str], assembly: Assembly) -> list[Region]:
    """Chromosomes or regions as typed."""
    from ebert_core.genome.regions import parse_region

    return [parse_region(text, assembly) for text in texts]


def split_regions(values: list[str] | None, option: str | None = None) -> list[str]:
    """`--valid-chrom chr1,chr20:5,000,000-6,000,000` -> two regions; commas inside numbers are no separators."""
    import re

    parts = [part.strip() for value in values or [] for part in re.split(r",(?!\d{3}(?!\d))", value) if part.strip()]
    return require_some(values, parts, option) if option else parts
