"""Options that several commands share, so that they are spelt and explained alike."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ebert_cli.console import ConsoleReporter, require_some

if TYPE_CHECKING:
    from ebert_core.config import PretrainConfig
    from ebert_core.data.dataset import Dataset
    from ebert_core.genome.assembly import Assembly
    from ebert_core.genome.regions import Region
    from ebert_core.inference.models import LoadedModel
    from ebert_core.inference.predictor import CellStates
    from ebert_core.model.device import Device
    from ebert_core.reporting import Reporter
    from ebert_core.training.distributed import Ranks
    from ebert_core.training.interrupts import Stops
    from ebert_core.training.loop import Surroundings

DatasetOption = Annotated[Path, typer.Option("--dataset", "-d", help="Dataset folder made by `ebert prepare`.")]
DeviceOption = Annotated[
    str, typer.Option("--device", help="auto, cpu, cuda or cuda:0. auto takes a GPU where there is one.")
]
DevicesOption = Annotated[
    int | None,
    typer.Option("--devices", min=1, help="Run on so many GPUs (or processes of the CPU) of this machine."),
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
ModelOption = Annotated[
    Path | None, typer.Option("--model", "-m", help="Model folder. Default: the one under models/ that knows the TFs.")
]
StatesOption = Annotated[
    Path | None, typer.Option("--states", help="Segmentation of a cell type that the dataset lacks.")
]
NoStatesOption = Annotated[bool, typer.Option("--no-states", help="Show the cell type's states as unknown.")]
AccessibilityOption = Annotated[
    Path | None,
    typer.Option("--accessibility", help="Peaks, bigWig or BAM of a cell type that the dataset has none of."),
]
NoAccessibilityOption = Annotated[
    bool, typer.Option("--no-accessibility", help="Show the cell type's accessibility as unknown.")
]
BothStrandsOption = Annotated[
    bool,
    typer.Option("--both-strands/--one-strand", help="Average the two strands' logits, or read one (twice as fast)."),
]
SeedOption = Annotated[int | None, typer.Option("--seed", min=0, help="Seed of everything random.")]


def parse_duration(text: str) -> float:
    """Seconds of `11h50m`, `90s`, `1d`; typer tells of any other text."""
    found = re.fullmatch(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", text.strip())
    seconds = (
        0
        if found is None
        else sum(int(n or 0) * s for n, s in zip(found.groups(), (86_400, 3_600, 60, 1), strict=True))
    )
    if not seconds:
        raise typer.BadParameter(f"{text!r} is no time; write for example 11h50m, 30m or 90s")
    return float(seconds)


MaxTimeOption = Annotated[
    float | None,
    typer.Option(
        "--max-time",
        parser=parse_duration,
        metavar="TIME",
        help="Save after so much time, for example 11h50m, and end with exit code 75: run me again with --resume.",
    ),
]
TensorBoardOption = Annotated[
    Path | None, typer.Option("--tensorboard", help="Folder to write the journal's figures to for TensorBoard.")
]


@dataclass(frozen=True)
class Place:
    """Where and how a training command runs, as typed."""

    device: str
    precision: str
    threads: int | None
    tensorboard: Path | None
    quiet: bool


@contextlib.contextmanager
def training_process(max_seconds: float | None) -> Iterator[tuple[Stops, Ranks | None]]:
    """Take this process's stops, and join the other ranks where there are any; None stands for one rank alone."""
    from ebert_core.training.interrupts import taken_stops

    with taken_stops(max_seconds) as stops:
        if count_of("WORLD_SIZE") == 1:
            yield stops, None
            return
        quieten_threads()
        from ebert_core.training.distributed import joined

        with joined() as ranks:
            yield stops, ranks


@contextlib.contextmanager
def ranks_meet() -> Iterator[Ranks | None]:
    """What ranks do before each goes its own way: all of them begin well, or none goes on; None for one alone."""
    if count_of("WORLD_SIZE") == 1:
        yield None
        return
    quieten_threads()
    from ebert_core.training.distributed import joined

    with joined() as ranks:
        yield ranks
        ranks.collect(None)


def start_ranks(devices: int | None) -> None:
    """Start the ranks of --devices and leave with their exit code; go on where this process is one, or alone."""
    from ebert_core.errors import EbertError

    started = count_of("WORLD_SIZE")
    if devices is not None and started not in (1, devices):
        raise EbertError(f"--devices {devices} within a run of {started} ranks", "leave out --devices")
    if devices is not None and devices > 1 and started == 1:
        from ebert_core.training.launch import launch

        raise typer.Exit(launch(devices, sys.argv[1:]))


def surroundings(place: Place, stops: Stops, ranks: Ranks | None) -> Surroundings:
    """The device and all else that a run is given beside its data; imports torch."""
    device = use_device(place.device, place.precision, place.threads)
    from ebert_core.reporting import SILENT
    from ebert_core.training.distributed import ALONE
    from ebert_core.training.loop import Surroundings
    from ebert_core.training.tensorboard import TensorBoard

    ranks = ranks or ALONE
    first = ranks.is_first
    listeners = (TensorBoard(place.tensorboard),) if place.tensorboard and first else ()
    return Surroundings(device, ConsoleReporter(place.quiet) if first else SILENT, ranks, stops, listeners)


def preset_config(name: str) -> PretrainConfig:
    """A preset; `UnknownNameError` where there is none of that name."""
    from ebert_core.config import PRESETS
    from ebert_core.errors import UnknownNameError

    if name not in PRESETS:
        raise UnknownNameError("preset", name, PRESETS)
    return PRESETS[name]


def quieten_threads() -> None:
    """What must be said before torch is imported.

    How long a waiting thread spins before it sleeps is read by libgomp when torch loads. Without a bound two busy
    processes on the same cores are up to 11 times slower than one; without any spinning a tiny model on quiet cores
    waits for wake-ups and is 1.9 times slower (docs/lab-notes.md).
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")


def use_device(name: str, precision: str, threads: int | None) -> Device:
    """Import torch with quiet threads, and choose the device; each of several ranks takes its own share."""
    quieten_threads()
    from ebert_core.errors import EbertError
    from ebert_core.model.device import choose_device, keep_freed_memory, set_threads

    if precision not in ("auto", "bf16", "fp32"):
        raise EbertError(f"unknown precision {precision!r}", "use auto, bf16 or fp32")
    here = count_of("LOCAL_WORLD_SIZE")
    set_threads(threads or max(1, len(os.sched_getaffinity(0)) // here))
    keep_freed_memory()
    return choose_device(_own_gpu(name, here), precision)  # type: ignore[arg-type]


def count_of(variable: str) -> int:
    """A number of processes that a launcher put into the environment; 1 where it put none."""
    from ebert_core.errors import EbertError

    text = os.environ.get(variable, "1")
    if not text.isdecimal() or int(text) < 1:
        raise EbertError(
            f"{variable} is {text!r}, expected a whole number", "torchrun and --devices set it; or unset it"
        )
    return int(text)


def _own_gpu(name: str, ranks_here: int) -> str:
    """The device of this rank: with several on a machine, the GPU of its number."""
    import torch

    from ebert_core.errors import EbertError

    if ranks_here == 1 or name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return name
    if name not in ("auto", "cuda"):
        raise EbertError(f"--device {name} is one device, the run has {ranks_here} ranks", "pass --device cuda or cpu")
    if ranks_here > torch.cuda.device_count():
        raise EbertError(
            f"{ranks_here} ranks on a machine with {torch.cuda.device_count()} GPU(s)",
            "start as many as there are GPUs, or pass --device cpu",
        )
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}"


def parse_regions(texts: list[str], assembly: Assembly) -> list[Region]:
    """Chromosomes or regions as typed."""
    from ebert_core.genome.regions import parse_region

    return [parse_region(text, assembly) for text in texts]


def split_regions(values: list[str] | None, option: str | None = None) -> list[str]:
    """`--valid-chrom chr1,chr20:5,000,000-6,000,000` -> two regions; commas inside numbers are no separators."""
    parts = [part.strip() for value in values or [] for part in re.split(r",(?!\d{3}(?!\d))", value) if part.strip()]
    return require_some(values, parts, option) if option else parts


@dataclass(frozen=True)
class CellFiles:
    """What a model is to be shown of a cell type, as typed."""

    states: Path | None
    no_states: bool
    accessibility: Path | None
    no_accessibility: bool

    def refuse_contradictions(self) -> None:
        """A file and its absence, both asked for, are an error."""
        from ebert_core.errors import EbertError

        for name, path, none in (
            ("states", self.states, self.no_states),
            ("accessibility", self.accessibility, self.no_accessibility),
        ):
            if path and none:
                raise EbertError(f"--{name} and --no-{name} were both given", "use one of them")


def show_cell(
    model: LoadedModel, dataset: Dataset, cell: str, files: CellFiles, place: Device, reporter: Reporter
) -> CellStates:
    """Resolve the cell type, let the model see its files, and say what it sees: a run's first lines."""
    from ebert_core.inference.predictor import cell_states, give_accessibility

    source = cell_states(dataset, model, cell, files.states, no_states=files.no_states)
    notes = give_accessibility(dataset, model, source.name, files.accessibility, hide=files.no_accessibility)
    for note in (*source.notes, *notes):
        reporter.warn(note)
    if source.flat is None:
        reporter.warn(f"states of {source.name}: {source.source}")
    reporter.log(f"device {place.describe()}; model {model.path}; states of {source.name}: {source.source}")
    return source
