"""From a model and a cell type to probabilities, one chromosome at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ebert_core.config import FinetuneConfig
from ebert_core.data.dataset import Dataset
from ebert_core.data.task_features import TrackReader
from ebert_core.epigenome.accessibility import read_accessibility
from ebert_core.epigenome.cell_types import canonical_cell, resolve_cell
from ebert_core.epigenome.state_tracks import read_state_track
from ebert_core.errors import EbertError, UnknownNameError
from ebert_core.genome.bins import all_bin_starts, scorable
from ebert_core.genome.regions import Region
from ebert_core.inference.models import LoadedModel
from ebert_core.inference.scan import Tracks, model_score, scan
from ebert_core.model.device import Device
from ebert_core.reporting import SILENT, Reporter
from ebert_core.vocabulary import BIN_BP, STATE_BIN_BP, STRIDE_BP

_BATCH_WINDOWS: Final = 8


@dataclass(frozen=True)
class CellStates:
    """Where the states of the asked cell type come from.

    Attributes:
        name: of the cell type, for file names and manifests.
        flat: state codes on the flat axis, or None: predicted with unknown states.
        source: in words.
        notes: what a user should know about the reading of a segmentation, a sentence each.
    """

    name: str
    flat: NDArray[np.uint8] | None
    source: str
    notes: tuple[str, ...] = ()


def cell_states(dataset: Dataset, model: LoadedModel, cell: str, states: Path | None, *, no_states: bool) -> CellStates:
    """The states of a cell type: from the dataset, from a segmentation file, or none at all.

    Raises:
        UnknownNameError: the dataset does not know the cell type and no other source was named.
    """
    reads_states = FinetuneConfig(**model.manifest["config"]).use_states
    if no_states or not reads_states:
        why = "asked for" if no_states else "the model was trained without states"
        return CellStates(_spelled(dataset, cell), None, f"none ({why})")
    if states is not None:
        track = read_state_track(states, dataset.assembly, model.state_model)
        uncovered = f"{states.name}: {track.uncovered_bins:,} of {len(track.codes):,} bins have no state"
        notes = (*track.notes, *([uncovered] if track.uncovered_bins > len(dataset.assembly.chroms) else []))
        return CellStates(_spelled(dataset, cell), track.codes, str(states), notes)
    try:
        name = resolve_cell(cell, dataset.cells, dataset.aliases)
    except UnknownNameError as error:
        more = "or pass its segmentation with --states FILE, or --no-states to predict without"
        raise EbertError(error.message, f"{error.hint}; {more}".replace("?;", "?")) from None
    if name not in dataset.state_cells:
        return CellStates(name, None, "none (the dataset has no states of this cell type)")
    return CellStates(name, dataset.flat_states(name), f"dataset {dataset.path}")


def _spelled(dataset: Dataset, cell: str) -> str:
    """The dataset's spelling of a cell type, or the common name of one that it lacks."""
    try:
        return resolve_cell(cell, dataset.cells, dataset.aliases)
    except UnknownNameError:
        return canonical_cell(cell, dataset.aliases)


@dataclass(frozen=True)
class Coverage:
    """How many bins were scored, and how many were not and why."""

    scored: int = 0
    all_n: int = 0
    excluded: int = 0

    def __add__(self, other: Coverage) -> Coverage:
        return Coverage(self.scored + other.scored, self.all_n + other.all_n, self.excluded + other.excluded)


def wanted_bins(dataset: Dataset, chrom: str, regions: Sequence[Region]) -> tuple[NDArray[np.bool_], Coverage]:
    """Bins of a chromosome to score: in a region by their centre, with a known base, not excluded; shape (N,).

    A region under 50 bp is widened to the 50 bp around its middle, so that it holds the centre of one bin, whose value
    stands on the region's middle base.
    """
    starts = all_bin_starts(dataset.assembly.length(chrom))
    inside = np.zeros(len(starts), dtype=bool)
    for region in regions:
        widened = (region.start + region.end - 1) // 2 - STRIDE_BP // 2 + 1
        low, high = min(region.start, widened), max(region.end, widened + STRIDE_BP)
        first = max(0, -(-(low - BIN_BP // 2) // STRIDE_BP))
        last = max(0, -(-(high - BIN_BP // 2) // STRIDE_BP))
        inside[first:last] = True
    codes = dataset.sequence(chrom)
    fit = scorable(codes, starts, dataset.excluded(chrom))
    empty = np.empty(0, dtype=np.int64)
    with_bases = scorable(codes, starts, (empty, empty))
    coverage = Coverage(
        scored=int((inside & fit).sum()),
        all_n=int((inside & ~with_bases).sum()),
        excluded=int((inside & with_bases & ~fit).sum()),
    )
    return inside & fit, coverage


def give_accessibility(
    dataset: Dataset, model: LoadedModel, cell: str, path: Path | None, *, hide: bool = False
) -> list[str]:
    """Let a model see a file as the cell type's accessibility, or see none; what a user should know of it.

    Raises:
        EbertError: a file is given and the model reads no accessibility.
        InputError: a fault in the file.
    """
    reader = model.tracks
    if reader is None or reader.spec.reference is None:
        if path is not None:
            raise EbertError(f"model {model.path} was trained without accessibility", "leave --accessibility out")
        return []
    if path is not None:
        track, notes = read_accessibility(path, dataset.assembly)
        reader.give(cell, track, str(path))
        return [*reader.missing, *notes]
    if hide:
        reader.give(cell, None, "none (asked for)")
    elif not reader.has_accessibility(cell):
        return [
            *reader.missing,
            f"accessibility of {cell}: none in the dataset; name its file with --accessibility if there is one",
        ]
    return list(reader.missing)


def tracks_of(dataset: Dataset, model: LoadedModel, cell: str | None, chrom: str) -> Tracks | None:
    """The model's task features of windows of a chromosome in a cell type; None where it reads none."""
    reader, offset = model.tracks, dataset.assembly.offset(chrom)
    if reader is None:
        return None
    return chrom_tracks(reader, cell, (offset, offset + dataset.assembly.length(chrom)), model.geometry().window_bp)


def chrom_tracks(reader: TrackReader, cell: str | None, span: tuple[int, int], window_bp: int) -> Tracks:
    """Task features of windows whose starts count from the beginning of `span`, flat positions of a chromosome."""

    def tracks(starts: NDArray[np.int64]) -> NDArray[np.float32]:
        return reader.read(cell, starts + span[0], window_bp, span=span)

    return tracks


@dataclass(frozen=True)
class Prediction:
    """Probabilities of one chromosome.

    Attributes:
        chrom: its name.
        probabilities: float32 (N, T) for the bins at strides 0, 1, ...; NaN where not scored.
        coverage: what was scored.
    """

    chrom: str
    probabilities: NDArray[np.float32]
    coverage: Coverage


@dataclass(frozen=True)
class Request:
    """What to predict.

    Attributes:
        tfs: in the order of the outputs' columns.
        cell: cell type and its states.
        regions: bins centred in them are scored.
        both_strands: average the logits of the two strands.
    """

    tfs: tuple[str, ...]
    cell: CellStates
    regions: tuple[Region, ...]
    both_strands: bool = True


def predict_chroms(
    dataset: Dataset, model: LoadedModel, request: Request, device: Device, reporter: Reporter = SILENT
) -> Iterator[Prediction]:
    """Score the regions, one chromosome after the other in the assembly's order.

    Raises:
        EbertError: no bin of the regions may have a value, or the model's answer for a bin is not a number.
    """
    tfs, cell, regions = request.tfs, request.cell, request.regions
    columns = [model.index(tf) for tf in tfs]
    score = model_score(model.module, device, both_strands=request.both_strands)
    geometry = model.geometry()
    chroms = [chrom for chrom in dataset.assembly.chroms if any(region.chrom == chrom for region in regions)]
    wanted = {chrom: wanted_bins(dataset, chrom, [r for r in regions if r.chrom == chrom]) for chrom in chroms}
    total = sum((coverage for _, coverage in wanted.values()), Coverage())
    if not total.scored:
        raise EbertError(
            f"no bin to score: {total.all_n:,} hold only N and {total.excluded:,} are excluded",
            "choose chromosomes or regions that have bins",
        )
    with reporter.task(f"scanning {cell.name}", total.scored, "bins") as advance:
        for chrom in chroms:
            bins_wanted, coverage = wanted[chrom]
            result = np.full((len(bins_wanted), len(tfs)), np.nan, dtype=np.float32)
            first = dataset.assembly.offset(chrom) // STATE_BIN_BP
            length = -(-dataset.assembly.length(chrom) // STATE_BIN_BP)
            states = None if cell.flat is None else cell.flat[first : first + length]
            tracks = tracks_of(dataset, model, cell.name, chrom)
            for bins, logits in scan(
                score, dataset.sequence(chrom), states, bins_wanted, geometry, _BATCH_WINDOWS, tracks
            ):
                if not np.isfinite(logits).all():
                    raise EbertError(
                        f"model {model.path} gives no number for some bins of {chrom}",
                        "try --precision fp32; if it stays, fine-tune again with a lower learning rate",
                    )
                for place, column in enumerate(columns):
                    result[bins, place] = model.calibration(model.tfs[column]).probabilities(logits[:, column])
                advance(len(bins), chrom)
            yield Prediction(chrom, result, coverage)
