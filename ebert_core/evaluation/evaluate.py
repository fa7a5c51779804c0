"""Score predictions of one TF in one cell type against the truth, beside the baselines."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ebert_core.artifacts import file_entry
from ebert_core.data.dataset import Dataset
from ebert_core.errors import EbertError, InputError
from ebert_core.evaluation import measures
from ebert_core.evaluation.baselines import NUM_BASELINES, Setting, Unavailable, baselines
from ebert_core.evaluation.held_out import held_out
from ebert_core.evaluation.results import Evaluation, Kind, Row
from ebert_core.evaluation.truth import Truth
from ebert_core.genome.intervals import Positions
from ebert_core.genome.labels import AMBIGUOUS, BOUND, UNBOUND
from ebert_core.io.predictions import PLACEMENTS, Placement, Predictions, read_sidecar
from ebert_core.reporting import SILENT, Advance, Reporter
from ebert_core.vocabulary import BASE_N, BIN_BP, STRIDE_BP, STRIDES_PER_BIN

Missing = Literal["error", "zero"]
MISSING: Final[dict[str, str]] = {
    "error": "a bin without a score is an error, unless it has no known base",
    "zero": "a bin without a score counts as 0, or as the lowest score where that is lower",
}
_SEQUENCE_AT_ONCE: Final = 1 << 24


@dataclass(frozen=True)
class EvaluationConfig:
    """How to evaluate.

    Attributes:
        chroms: chromosomes, in any spelling; empty for all that have both labels and predictions.
        placement: how values of a file are laid on bins; see `ebert_core.io.predictions.PLACEMENTS`.
        missing: what a bin without a score means; see `MISSING`.
        with_baselines: whether to score the baselines too.
        motifs_path: MEME file for the motif baseline.

    Raises:
        EbertError: an unknown placement or treatment of missing scores.
    """

    chroms: tuple[str, ...] = ()
    placement: Placement = "centre"
    missing: Missing = "error"
    with_baselines: bool = True
    motifs_path: Path | None = None

    def __post_init__(self) -> None:
        if self.placement not in PLACEMENTS:
            raise EbertError(f"unknown placement {self.placement!r}", f"known: {', '.join(PLACEMENTS)}")
        if self.missing not in get_args(Missing):
            raise EbertError(f"unknown treatment of missing scores {self.missing!r}", f"known: {', '.join(MISSING)}")


@dataclass(frozen=True)
class Contender:
    """A file to be scored.

    Attributes:
        name: what the table calls it.
        path: the file; its sidecar, where there is one, lies beside it.
        kind: 'prediction', or 'comparison' for somebody else's.
    """

    name: str
    path: Path
    kind: Kind = "prediction"


@dataclass(frozen=True)
class _Bins:
    """The bound and unbound bins; starts: chromosome -> (N,); bound: of all chromosomes end to end."""

    starts: dict[str, Positions]
    bound: NDArray[np.bool_]
    counts: dict[str, dict[str, int]]

    def slices(self) -> Iterator[tuple[str, slice]]:
        """Where each chromosome's bins lie in an array over all of them."""
        at = 0
        for chrom, starts in self.starts.items():
            yield chrom, slice(at, at + len(starts))
            at += len(starts)


def evaluate(
    config: EvaluationConfig,
    truth: Truth,
    contenders: Sequence[Contender],
    dataset: Dataset | None = None,
    reporter: Reporter = SILENT,
) -> Evaluation:
    """Score every contender and baseline on the same bins.

    Args:
        truth: labels of one TF in one cell type.
        contenders: prediction files for that pair.
        dataset: for the baselines and to tell bins without a known base; on the truth's assembly.

    Raises:
        EbertError: no chromosome in common, bins without a score where `config.missing` is 'error', no bound or no
            unbound bin, two contenders of one name, or a dataset on another assembly. File faults are `InputError`.
    """
    _check_arguments(config, truth, contenders, dataset)
    rows: list[Row] = []
    unavailable: list[Unavailable] = []
    notes = list(truth.notes)
    with contextlib.ExitStack() as stack:
        sidecars = [read_sidecar(contender.path) for contender in contenders]
        opened = [stack.enter_context(Predictions.open(contender.path, truth.assembly)) for contender in contenders]
        bins = _load_bins(truth, _choose_chroms(config, truth, opened))
        tables = len(opened) + (NUM_BASELINES if config.with_baselines else 0)
        advance = stack.enter_context(
            reporter.task(f"evaluating {truth.tf} in {truth.cell}", tables * len(bins.bound), "bins")
        )
        for contender, sidecar, predictions in zip(contenders, sidecars, opened, strict=True):
            _check_sidecar(contender, sidecar, truth)
            rows.append(_score_file(config, truth, bins, (contender, sidecar, predictions), dataset))
            notes += predictions.notes
            advance(len(bins.bound), contender.name)
        if config.with_baselines:
            setting = _setting(config, truth, bins, dataset, sidecars)
            baseline_rows, unavailable = _score_baselines(setting, bins, advance)
            rows += baseline_rows
    return Evaluation(
        tf=truth.tf,
        cell=truth.cell,
        chroms=tuple(bins.starts),
        assembly={"name": truth.assembly.name, "digest": truth.assembly.digest},
        counts=bins.counts,
        rows=tuple(rows),
        unavailable=tuple(unavailable),
        truth=truth.source,
        placement=(config.placement, PLACEMENTS[config.placement]),
        missing=(config.missing, MISSING[config.missing]),
        notes=tuple(dict.fromkeys(notes)),
        provenance={
            "truth": {str(path): file_entry(path) for path in truth.files},
            "dataset": str(dataset.path) if dataset else None,
        },
    )


def _check_arguments(
    config: EvaluationConfig, truth: Truth, contenders: Sequence[Contender], dataset: Dataset | None
) -> None:
    if dataset and dataset.assembly.digest != truth.assembly.digest:
        raise EbertError(
            f"dataset {dataset.path} is on {dataset.assembly.name}, the truth on {truth.assembly.name}",
            "use a dataset of the same chromosomes",
        )
    if not contenders and not config.with_baselines:
        raise EbertError("there is nothing to evaluate", "name a predictions file, or leave the baselines on")
    names = [contender.name for contender in contenders]
    if twice := [name for name in names if names.count(name) > 1]:
        raise EbertError(f"two predictions are called {twice[0]!r}", "name them apart: --compare NAME=FILE")


def _check_sidecar(contender: Contender, sidecar: Mapping[str, Any] | None, truth: Truth) -> None:
    theirs = (sidecar or {}).get("assembly", {}).get("name", "custom")
    if "custom" not in (theirs, truth.assembly.name) and theirs != truth.assembly.name:
        raise InputError(
            contender.path, f"is on {theirs}, the truth is on {truth.assembly.name}", "predict on the truth's assembly"
        )


def _choose_chroms(config: EvaluationConfig, truth: Truth, opened: Sequence[Predictions]) -> list[str]:
    if config.chroms:
        chroms = truth.assembly.require(config.chroms)
        if unlabelled := [chrom for chrom in chroms if chrom not in truth.chroms]:
            raise EbertError(
                f"{', '.join(unlabelled)} has no {truth.tf} labels in {truth.cell} ({truth.source})",
                f"it has labels on {', '.join(truth.chroms)}",
            )
        return [chrom for chrom in truth.assembly.chroms if chrom in chroms]
    chroms = [chrom for chrom in truth.chroms if all(chrom in predictions.chroms for predictions in opened)]
    if not chroms:
        have = "; ".join(
            f"{predictions.path.name}: {', '.join(predictions.chroms) or 'none'}" for predictions in opened
        )
        raise EbertError(
            f"no chromosome has both {truth.tf} labels in {truth.cell} and predictions",
            f"labels: {', '.join(truth.chroms) or 'none'}; {have}",
        )
    return chroms


def _load_bins(truth: Truth, chroms: Sequence[str]) -> _Bins:
    starts, bound, counts = {}, [], {}
    for chrom in chroms:
        all_starts, labels = truth.on(chrom)
        numbers = np.bincount(labels, minlength=BOUND + 1)
        counts[chrom] = {
            "bound": int(numbers[BOUND]),
            "unbound": int(numbers[UNBOUND]),
            "ambiguous": int(numbers[AMBIGUOUS]),
        }
        clear = labels != AMBIGUOUS
        starts[chrom] = all_starts[clear]
        bound.append(labels[clear] == BOUND)
    joined = np.concatenate(bound)
    if joined.all() or not joined.any():
        raise EbertError(
            f"{', '.join(chroms)} has no {'unbound' if joined.any() else 'bound'} bin of {truth.tf} in {truth.cell}",
            f"choose other chromosomes ({truth.source})",
        )
    return _Bins(starts, joined, counts)


def _setting(
    config: EvaluationConfig,
    truth: Truth,
    bins: _Bins,
    dataset: Dataset | None,
    sidecars: Sequence[Mapping[str, Any] | None],
) -> Setting:
    """The baselines learn in the cell types that the predictions say they learned from, else in all others."""
    trained = {cell for sidecar in sidecars if sidecar for cell in sidecar.get("trained_on", {}).get("cells", ())}
    return Setting(
        tf=truth.tf,
        cell=truth.cell,
        chroms=tuple(bins.starts),
        prevalence=float(bins.bound.mean()),
        dataset=dataset,
        motifs_path=config.motifs_path,
        training_cells=tuple(sorted(trained)) if trained - {truth.cell} else None,
    )


def _score_file(
    config: EvaluationConfig,
    truth: Truth,
    bins: _Bins,
    entry: tuple[Contender, Mapping[str, Any] | None, Predictions],
    dataset: Dataset | None,
) -> Row:
    contender, sidecar, predictions = entry
    scores = np.empty(len(bins.bound), np.float32)
    for chrom, here in bins.slices():
        scores[here] = predictions.scores(chrom, bins.starts[chrom], config.placement)
    missing = np.isnan(scores)
    num_missing, num_unknown = int(missing.sum()), 0
    note = ""
    if num_missing:
        unknown = missing & _without_bases(bins, missing, dataset)
        num_unknown = int(unknown.sum())
        if config.missing == "error" and num_missing > num_unknown:
            raise _missing_error(contender, bins, missing & ~unknown)
        lowest = min(0.0, float(np.nanmin(scores)) if num_missing < len(scores) else 0.0)
        scores[missing] = lowest
        note = _missing_note(num_missing, num_unknown, lowest)
    own = {"name": contender.path.name, **file_entry(contender.path)} if contender.path.is_file() else {}
    return _row(
        (contender.name, contender.kind, note),
        bins,
        scores,
        held_out=held_out(sidecar, (truth.tf, truth.cell), bins.starts),
        missing_bins=num_missing,
        unknown_bins=num_unknown,
        reliability=measures.reliability(scores, bins.bound) if measures.are_probabilities(scores) else None,
        provenance={"path": str(contender.path), "format": predictions.format, **own, **_origin(sidecar)},
    )


def _missing_note(num_missing: int, num_unknown: int, value: float) -> str:
    parts = [f"{num_unknown:,} of N only"] if num_unknown else []
    parts += [f"{num_missing - num_unknown:,} others"] if num_missing > num_unknown else []
    return f"{num_missing:,} bins without a score count as {value:g} ({', '.join(parts)})"


def _origin(sidecar: Mapping[str, Any] | None) -> dict[str, Any]:
    """What of a sidecar belongs in the report."""
    return {key: sidecar[key] for key in ("model", "trained_on", "created_utc") if key in sidecar} if sidecar else {}


def _missing_error(contender: Contender, bins: _Bins, missing: NDArray[np.bool_]) -> InputError:
    first = int(np.argmax(missing))
    chrom, here = next((chrom, here) for chrom, here in bins.slices() if here.start <= first < here.stop)
    start = int(bins.starts[chrom][first - here.start])
    return InputError(
        contender.path,
        f"has no score for {int(missing.sum()):,} of {len(missing):,} bins; the first is {chrom}:{start:,}",
        "--missing zero counts them as the lowest score; or evaluate other chromosomes (--chrom), or lay the file's "
        "values on bins in another way (--placement)",
    )


def _without_bases(bins: _Bins, missing: NDArray[np.bool_], dataset: Dataset | None) -> NDArray[np.bool_]:
    """Which bins hold nothing but N; false everywhere without a dataset."""
    out = np.zeros(len(missing), bool)
    if dataset:
        for chrom, here in bins.slices():
            if missing[here].any():
                stride = bins.starts[chrom] // STRIDE_BP
                known = _strides_with_bases(dataset.sequence(chrom))
                out[here] = ~np.any([known[stride + step] for step in range(STRIDES_PER_BIN)], axis=0)
    return out


def _strides_with_bases(codes: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Whether each 50-bp stride has a known base, bool of shape (ceil(length / 50),)."""
    pieces = []
    for start in range(0, len(codes), _SEQUENCE_AT_ONCE // BIN_BP * BIN_BP):
        known = codes[start : start + _SEQUENCE_AT_ONCE // BIN_BP * BIN_BP] < BASE_N
        padded = np.pad(known, (0, -len(known) % STRIDE_BP))
        pieces.append(padded.reshape(-1, STRIDE_BP).any(axis=1))
    return np.concatenate(pieces)


def _score_baselines(setting: Setting, bins: _Bins, advance: Advance) -> tuple[list[Row], list[Unavailable]]:
    rows, unavailable = [], []
    for baseline in baselines(setting):
        advance(len(bins.bound), baseline.name)
        if isinstance(baseline, Unavailable):
            unavailable.append(baseline)
            continue
        scores = np.concatenate([baseline.scores(chrom, starts) for chrom, starts in bins.starts.items()])
        rows.append(_row((baseline.name, "baseline", baseline.note), bins, scores))
    return rows, unavailable


def _row(labels: tuple[str, Kind, str], bins: _Bins, scores: NDArray[np.float32], **more: Any) -> Row:
    name, kind, note = labels
    counts = measures.thresholds(scores, bins.bound)
    overall = measures.measures_at(counts)
    by_chrom: dict[str, measures.Measures | None] = {}
    for chrom, here in bins.slices():
        bound = bins.bound[here]
        if len(bins.starts) == 1:
            by_chrom[chrom] = overall
        else:
            mixed = bool(bound.any()) and not bool(bound.all())
            by_chrom[chrom] = measures.measure(scores[here], bound) if mixed else None
    return Row(
        name=name,
        kind=kind,
        measures=overall,
        by_chrom=by_chrom,
        note=note,
        pr_curve=measures.precision_recall_curve(counts),
        roc_curve=measures.roc_curve(counts),
        **more,
    )
