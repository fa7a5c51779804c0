"""Anybody's predictions, laid on 200-bp bins: bigWig, bedGraph, BED, tab, narrowPeak; and what ours say of themselves.

A file's values need a rule to become a bin's score, and the rule matters: the same CTCF predictions read 75 bp off fall
from an auPRC of .56 to .40. A row that is a 200-bp bin is that bin's score under every rule; see `PLACEMENTS`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from ebert_core.artifacts import MADE_BY, SIDECAR_SUFFIX, check_file, check_manifest, read_json
from ebert_core.errors import InputError
from ebert_core.genome.assembly import Assembly
from ebert_core.genome.bins import BenchmarkBins
from ebert_core.genome.intervals import Positions
from ebert_core.io.bigwig import BigWigReader, is_bigwig
from ebert_core.io.score_tables import read_score_table
from ebert_core.io.submissions import read_submission, submission_chroms, submission_name
from ebert_core.vocabulary import STRIDE_BP

PREDICTIONS_FORMAT: Final = 1
SPREAD_SUFFIX: Final = ".spread.bw"
# Files from which `ebert predict --min-score` leaves bins out.
_TRACK_ENDINGS: Final = (".bw", ".bedgraph.gz")

Placement = Literal["centre", "start", "mean", "max"]
PLACEMENTS: Final[dict[str, str]] = {
    "centre": "the mean over the bin's central 50 bp (start + 75 to start + 125)",
    "start": "the mean over the bin's first 50 bp",
    "mean": "the mean over the bin's 200 bp",
    "max": "the highest value within the bin's 200 bp",
}
_WINDOWS: Final[dict[str, tuple[int, int]]] = {"centre": (75, 125), "start": (0, 50), "mean": (0, 200), "max": (0, 200)}
_SUFFIX: Final = re.compile(r"\.(bw|bigwig|narrowpeak|bed|bedgraph|bg|tab|tsv|txt)$", re.IGNORECASE)
_READ_BP: Final = 4_000_000


class Predictions:
    """An open file of predictions; `Predictions.open` tells what it is. Use it in a `with` block.

    Attributes:
        path: the file.
        format: what it was taken for, in words, with the column used.
        chroms: assembly names of the chromosomes on which the file has values, in the assembly's order.
        notes: what a user should know about the reading, a sentence each.
        min_score: its sidecar says that bins under this were left out; None where none were.
    """

    def __init__(self, path: Path, format_: str, chroms: tuple[str, ...], notes: list[str]) -> None:
        self.path = path
        self.format = format_
        self.chroms = chroms
        self.notes = notes
        self.min_score = _min_score(path)
        if self.min_score is not None:
            notes.append(
                f"{path.name}: bins under {self.min_score:g} were left out when it was written (--min-score); "
                "they have no score"
            )

    @staticmethod
    def open(path: Path, assembly: Assembly, bins: BenchmarkBins | None = None) -> Predictions:
        """Open a file on an assembly.

        A file that is named like a submission of the challenge (`F.TF.CELL.tab.gz`) must have exactly its rows.

        Args:
            bins: the benchmark's bins, for submissions.

        Raises:
            InputError: the file is missing, of no known format, of another assembly, or damaged; or a submission and
                no `bins`.
        """
        if str(path) != "-":
            if not path.exists():
                raise InputError(path, "is not there", "check the path, or make predictions with `ebert predict`")
            if path.is_file() and (is_bigwig(path) or path.suffix.casefold() in (".bw", ".bigwig")):
                return _BigWigPredictions(path, assembly)
            if submission_name(path):
                return _Submission(path, bins)
        return _TextPredictions(path, assembly)

    def __enter__(self) -> Predictions:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give back the file handle, where there is one."""

    def load(self, chroms: tuple[str, ...]) -> None:
        """Say which chromosomes will be asked for, before the first call of `scores`."""

    def scores(self, chrom: str, starts: Positions, placement: Placement = "centre") -> NDArray[np.float32]:
        """The scores of bins.

        Args:
            chrom: a name of the assembly.
            starts: bin starts, multiples of 50, rising, shape (N,); every bin lies on the chromosome.
            placement: how the file's values are laid on bins; see `PLACEMENTS`.

        Returns:
            float32 of shape (N,); NaN where the file says nothing about the window that counts.
        """
        raise NotImplementedError


class _TextPredictions(Predictions):
    def __init__(self, path: Path, assembly: Assembly) -> None:
        self._table = read_score_table(path, assembly)
        notes = []
        if self._table.renamed:
            notes.append(f"{path.name}: chromosome names were reconciled ({self._table.renamed})")
        if dropped := self._table.dropped:
            notes.append(
                f"{path.name}: {sum(dropped.values()):,} rows lie on chromosomes that the genome lacks "
                f"({_some(dropped)}) and were left out"
            )
        chroms = tuple(chrom for chrom in assembly.chroms if chrom in self._table.chroms)
        super().__init__(path, f"text, {self._table.column}", chroms, notes)

    def scores(self, chrom: str, starts: Positions, placement: Placement = "centre") -> NDArray[np.float32]:
        rows = self._table.chroms.get(chrom)
        if rows is None:
            return np.full(len(starts), np.nan, np.float32)
        first, last = _WINDOWS[placement]
        over = rows.max_over if placement == "max" else rows.mean_over
        given = rows.at_bins(starts)
        return np.where(np.isnan(given), over(starts + first, starts + last), given)


class _Submission(Predictions):
    """A submission of the challenge: its rows are the benchmark's bins, one by one; `load` reads and checks it."""

    def __init__(self, path: Path, bins: BenchmarkBins | None) -> None:
        if bins is None:
            raise InputError(
                path,
                "is a submission, and which rows it must have is not known",
                "name the challenge's regions file with --regions, or a dataset with --dataset",
            )
        self._bins = bins
        self._scores: dict[str, NDArray[np.float32]] = {}
        rows = submission_chroms(path, bins)
        chroms = tuple(chrom for chrom in bins.assembly.chroms if chrom in rows)
        super().__init__(path, "submission of the challenge, row for row", chroms, [])

    def load(self, chroms: tuple[str, ...]) -> None:
        self._scores = read_submission(self.path, self._bins, [chrom for chrom in chroms if chrom in self.chroms])

    def scores(self, chrom: str, starts: Positions, placement: Placement = "centre") -> NDArray[np.float32]:
        out = np.full(len(starts), np.nan, np.float32)
        if chrom in self._scores:
            known = self._bins.starts(chrom)
            place = np.minimum(np.searchsorted(known, starts), len(known) - 1)
            hit = known[place] == starts
            out[hit] = self._scores[chrom][place[hit]]
        return out


class _BigWigPredictions(Predictions):
    def __init__(self, path: Path, assembly: Assembly) -> None:
        self._reader = BigWigReader(path)
        self._names: dict[str, str] = {}
        unknown = []
        for name, length in self._reader.sizes.items():
            chrom = assembly.resolve(name)
            if chrom is None:
                unknown.append(name)
            elif length != assembly.length(chrom):
                raise InputError(
                    path,
                    f"{name} has {length:,} bp, the genome's {chrom} has {assembly.length(chrom):,}",
                    f"the genome's assembly is {assembly.name}: use predictions on the same one",
                )
            elif self._reader.has_values(name):
                self._names[chrom] = name
        if len(unknown) == len(self._reader.sizes):
            raise InputError(
                path,
                f"names chromosomes such as {_some(unknown)}; the genome has {_some(assembly.chroms)}",
                "the two share no chromosome: check that both are of the same assembly",
            )
        notes = []
        if left := [name for name in unknown if self._reader.has_values(name)]:
            notes.append(f"{path.name}: values on chromosomes that the genome lacks ({_some(left)}) were left out")
        if renamed := [f"{old} -> {new}" for new, old in self._names.items() if new != old]:
            notes.append(f"{path.name}: chromosome names were reconciled ({renamed[0]})")
        chroms = tuple(chrom for chrom in assembly.chroms if chrom in self._names)
        super().__init__(path, "bigWig", chroms, notes)

    def close(self) -> None:
        self._reader.__exit__(None, None, None)

    def scores(self, chrom: str, starts: Positions, placement: Placement = "centre") -> NDArray[np.float32]:
        out = np.full(len(starts), np.nan, np.float32)
        if chrom in self._names:
            first, last = _WINDOWS[placement]
            for part in _portions(starts):
                begin, end = int(starts[part][0]) + first, int(starts[part][-1]) + last
                values = self._reader.fixed_values(self._names[chrom], begin, end)
                windows = _highest(values, last - first) if placement == "max" else _means(values, last - first)
                out[part] = windows[(starts[part] - starts[part][0]) // STRIDE_BP]
            if (endless := np.isinf(out)).any():
                raise InputError(
                    self.path,
                    f"has an infinite value near {self._names[chrom]}:{starts[int(np.argmax(endless))]:,}",
                    "scores are finite numbers: leave out values that are none",
                )
        return out


def _portions(starts: Positions) -> Iterator[slice]:
    """Runs of bins that begin within a few Mb of each other."""
    at = 0
    while at < len(starts):
        after = int(np.searchsorted(starts, starts[at] + _READ_BP, side="left"))
        yield slice(at, after)
        at = after


def _means(values: NDArray[np.float32], width_bp: int) -> NDArray[np.float64]:
    """Means, over the bp that have a value, of windows of `width_bp` that begin every 50 bp; NaN where none has."""
    blocks = values.reshape(-1, STRIDE_BP)
    total = blocks.sum(axis=1, dtype=np.float64)
    count = np.full(len(blocks), STRIDE_BP, np.int64)
    holed = np.flatnonzero(np.isnan(total))
    total[holed] = np.nansum(blocks[holed], axis=1, dtype=np.float64)
    count[holed] = np.count_nonzero(~np.isnan(blocks[holed]), axis=1)
    together = width_bp // STRIDE_BP
    if together > 1:
        total = np.lib.stride_tricks.sliding_window_view(total, together).sum(axis=1)
        count = np.lib.stride_tricks.sliding_window_view(count, together).sum(axis=1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _highest(values: NDArray[np.float32], width_bp: int) -> NDArray[np.float32]:
    """As `_means`, with the highest value."""
    blocks = np.fmax.reduce(values.reshape(-1, STRIDE_BP), axis=1)
    return np.fmax.reduce(np.lib.stride_tricks.sliding_window_view(blocks, width_bp // STRIDE_BP), axis=1)


def _some(names: Any, most: int = 4) -> str:
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def sidecar_path(path: Path) -> Path:
    """Where a predictions file's sidecar lies: `STEM.ebert.json` for `STEM.bw`, `STEM.narrowPeak`, `F.STEM.tab.gz`."""
    if named := submission_name(path):
        return path.with_name(f"{named[1]}.{named[2]}{SIDECAR_SUFFIX}")
    name = path.name.removesuffix(".gz").removesuffix(".bgz")
    return path.with_name(_SUFFIX.sub("", name) + SIDECAR_SUFFIX)


def _min_score(path: Path) -> float | None:
    """Under which score a file of ours leaves bins out; it is `read_sidecar` that tells of a damaged sidecar."""
    beside = sidecar_path(path)
    if not path.name.casefold().endswith(_TRACK_ENDINGS) or not beside.is_file():
        return None
    try:
        sidecar = read_json(beside)
        return float(sidecar["min_score"]) if path.name in sidecar["files"] else None
    except (InputError, KeyError, TypeError, ValueError):
        return None


def read_sidecar(path: Path) -> dict[str, Any] | None:
    """What a predictions file says of itself, or None where nothing is known of it.

    The keys: tf, cell, assembly {name, digest}, chroms, model, trained_on {tfs, cells, regions}, calibration,
    files {name: {bytes, sha256}} (docs/formats.md).

    Raises:
        InputError: the sidecar is damaged, of another kind or version, or the file was changed since.
    """
    beside = sidecar_path(path)
    if str(path) == "-" or not beside.is_file():
        return None
    sidecar = _checked(read_json(beside), beside)
    if path.name not in sidecar["files"]:
        return None
    check_file(path.parent, path.name, sidecar["files"][path.name], "predictions")
    return sidecar


def _checked(manifest: Any, beside: Path) -> dict[str, Any]:
    """A sidecar; `InputError` where what is read of it is missing or of another kind."""
    sidecar = check_manifest(manifest, beside, "predictions", PREDICTIONS_FORMAT)
    try:
        named = [sidecar["tf"], sidecar["cell"], sidecar.get("assembly", {}).get("name", "")]
        sizes = [entry["bytes"] for entry in sidecar["files"].values()]
        named += [entry["sha256"] for entry in sidecar["files"].values()]
        for read in (sidecar.get("trained_on") or {}, sidecar.get("pretrained_on") or {}):
            named += [name for key in ("tfs", "cells") for name in read.get(key, ())]
            named += [chrom for chrom, _, _ in read.get("regions", ())]
            sizes += [edge for _, *edges in read.get("regions", ()) for edge in edges]
            sizes += [read.get("window_bp", 0)]
        if trained := sidecar.get("trained_on"):
            _ = trained["tfs"], trained["cells"], trained["regions"]
        problem = next((f"{each!r} is no text" for each in named if not isinstance(each, str)), "")
        problem = problem or next((f"{each!r} is no whole number" for each in sizes if not isinstance(each, int)), "")
    except KeyError as error:
        problem = f"no {error}"
    except (AttributeError, TypeError, ValueError) as error:
        problem = str(error)
    if problem:
        raise InputError(beside, f"is damaged ({problem})", f"make it anew with `{MADE_BY['predictions']}`")
    return sidecar


def find_predictions(folder: Path) -> list[Path]:
    """The predictions in a folder that have a sidecar: of each, its bigWig, else the first that there is."""
    found = []
    for beside in sorted(folder.glob(f"*{SIDECAR_SUFFIX}")):
        manifest = read_json(beside)
        if isinstance(manifest, dict) and manifest.get("kind") == "predictions":
            names = sorted(name for name in _checked(manifest, beside)["files"] if not name.endswith(SPREAD_SUFFIX))
            for ending in (".bw", ".tab.gz", ".bed.gz", ".bedGraph.gz", ".narrowPeak"):
                if match := [name for name in names if name.endswith(ending)]:
                    found.append(folder / match[0])
                    break
    return found
