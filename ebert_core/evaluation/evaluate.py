"""Score predictions of one TF in one cell type against the truth, beside the baselines."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, get_args

import numpy as np

from ebert_core.artifacts import file_entry
from ebert_core.data.dataset import Dataset
from ebert_core.errors import EbertError, InputError
from ebert_core.evaluation import measures
from ebert_core.evaluation.baselines import BASELINE_NAMES, Setting, Unavailable, baselines
from ebert_core.evaluation.evaluated_bins import EvaluatedBins, load_bins, without_bases
from ebert_core.evaluation.held_out import HeldOut, held_out, refuse_seen
from ebert_core.evaluation.results import Evaluation, Kind
from ebert_core.evaluation.scoring import Resampling, Scores, ScoreSheet
from ebert_core.evaluation.truth import Truth
from ebert_core.genome.intervals import Positions
from ebert_core.io.predictions import PLACEMENTS, Placement, Predictions, read_sidecar
from ebert_core.reporting import SILENT, Advance, Reporter

Missing = Literal["error", "zero"]
MISSING: Final[dict[str, str]] = {
    "error": "a bin without a score is an error, unless it has no known base",
    "zero": "a bin without a score counts as 0, or as the lowest score where that is lower",
}


@dataclass(frozen=True)
class EvaluationConfig:
    """How to evaluate.

    Attributes:
        chroms: chromosomes, in any spelling; empty for all that have both labels and predictions.
        placement: how values of a file are laid on bins; see `ebert_core.io.predictions.PLACEMENTS`.
        missing: what a bin without a score means; see `MISSING`.
        with_baselines: whether to score the baselines too.
        motifs_path: MEME file for the motif baselines.
        allow_seen: whether to score predictions whose model was trained on what is evaluated.
        resampling: how intervals are made; None makes none.
        subsamples: whether to measure on the challenge's ten subsamples too; `chroms` are then taken in the
            challenge's order.

    Raises:
        EbertError: an unknown placement or treatment of missing scores.
    """

    chroms: tuple[str, ...] = ()
    placement: Placement = "centre"
    missing: Missing = "error"
    with_baselines: bool = True
    motifs_path: Path | None = None
    allow_seen: bool = False
    resampling: Resampling | None = field(default_factory=Resampling)
    subsamples: bool = False

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
class _Opened:
    """A contender with what it says of itself and its open file."""

    contender: Contender
    sidecar: Mapping[str, Any] | None
    predictions: Predictions
    verdict: HeldOut


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
        dataset: for the baselines, the states and to tell bins without a known base; on the truth's assembly.

    Raises:
        EbertError: no chromosome in common, bins without a score where `config.missing` is 'error', no bound or no
            unbound bin, a prediction that was seen in training where `config.allow_seen` is not set, two contenders of
            one name, or a dataset on another assembly. File faults are `InputError`.
    """
    _check_arguments(config, truth, contenders, dataset)
    with contextlib.ExitStack() as stack:
        sidecars = [read_sidecar(contender.path) for contender in contenders]
        files = [stack.enter_context(Predictions.open(each.path, truth.assembly, truth.bins)) for each in contenders]
        bins = load_bins(truth, _choose_chroms(config, truth, files))
        opened = [_judged(*each, truth, bins) for each in zip(contenders, sidecars, files, strict=True)]
        if not config.allow_seen:
            verdicts = {each.contender.name: each.verdict for each in opened}
            refuse_seen(verdicts, truth.chroms, (truth.tf, truth.cell))
        sheet = ScoreSheet(bins, truth, dataset, config.resampling, subsamples=config.subsamples)
        tables = len(opened) + (len(BASELINE_NAMES) if config.with_baselines else 0)
        advance = stack.enter_context(
            reporter.task(f"evaluating {truth.tf} in {truth.cell}", tables * len(bins), "bins")
        )
        for each in opened:
            _score_file(config, sheet, each, dataset)
            advance(len(bins), each.contender.name)
        unavailable = []
        if config.with_baselines:
            unavailable = _score_baselines(_setting(config, truth, bins, dataset, sidecars), sheet, advance)
    file_notes = [note for each in opened for note in each.predictions.notes]
    return Evaluation(
        tf=truth.tf,
        cell=truth.cell,
        chroms=tuple(bins.starts),
        assembly={"name": truth.assembly.name, "digest": truth.assembly.digest},
        counts=bins.counts,
        rows=tuple(sheet.rows),
        unavailable=tuple(unavailable),
        truth=truth.source,
        placement=(config.placement, PLACEMENTS[config.placement]),
        missing=(config.missing, MISSING[config.missing]),
        notes=tuple(dict.fromkeys([*truth.notes, *file_notes, *sheet.notes])),
        provenance={
            # What came through a pipe cannot be read again.
            "truth": truth.sources | {str(path): file_entry(path) for path in truth.files if path.is_file()},
            "dataset": str(dataset.path) if dataset else None,
            "motifs": _motifs_entry(config),
        },
        bootstrap=sheet.bootstrap,
        differences=sheet.differences(),
        states=sheet.states,
        loci=sheet.loci(),
    )


def _motifs_entry(config: EvaluationConfig) -> dict[str, Any] | None:
    if not (config.with_baselines and config.motifs_path and config.motifs_path.is_file()):
        return None
    return {"name": config.motifs_path.name, **file_entry(config.motifs_path)}


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
    if config.with_baselines and (taken := [name for name in names if name in BASELINE_NAMES]):
        raise EbertError(
            f"a prediction is called {taken[0]!r}, as a baseline is",
            "name it otherwise: --compare NAME=FILE; or leave the baselines out: --no-baselines",
        )
    if [str(path) for path in (*truth.files, *(each.path for each in contenders))].count("-") > 1:
        raise EbertError("two files are read from standard input (`-`)", "name all but one of them")


def _judged(
    contender: Contender, sidecar: Mapping[str, Any] | None, file: Predictions, truth: Truth, bins: EvaluatedBins
) -> _Opened:
    theirs = (sidecar or {}).get("assembly", {}).get("name", "custom")
    if "custom" not in (theirs, truth.assembly.name) and theirs != truth.assembly.name:
        raise InputError(
            contender.path, f"is on {theirs}, the truth is on {truth.assembly.name}", "predict on the truth's assembly"
        )
    return _Opened(contender, sidecar, file, held_out(sidecar, (truth.tf, truth.cell), bins.starts))


def _choose_chroms(config: EvaluationConfig, truth: Truth, files: Sequence[Predictions]) -> list[str]:
    if config.chroms:
        chroms = truth.assembly.require(config.chroms)
        if unlabelled := [chrom for chrom in chroms if chrom not in truth.chroms]:
            raise EbertError(
                f"{', '.join(unlabelled)} has no {truth.tf} labels in {truth.cell} ({truth.source})",
                f"it has labels on {', '.join(truth.chroms)}",
            )
        return sorted(chroms) if config.subsamples else [each for each in truth.assembly.chroms if each in chroms]
    chroms = [chrom for chrom in truth.chroms if all(chrom in predictions.chroms for predictions in files)]
    if not chroms:
        have = "; ".join(f"{each.path.name}: {', '.join(each.chroms) or 'none'}" for each in files)
        raise EbertError(
            f"no chromosome has both {truth.tf} labels in {truth.cell} and predictions",
            f"labels: {', '.join(truth.chroms) or 'none'}; {have}",
        )
    return chroms


def _setting(
    config: EvaluationConfig,
    truth: Truth,
    bins: EvaluatedBins,
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


def _score_file(config: EvaluationConfig, sheet: ScoreSheet, opened: _Opened, dataset: Dataset | None) -> None:
    contender, predictions, bins = opened.contender, opened.predictions, sheet.bins
    predictions.load(tuple(bins.starts))

    def scorer(chrom: str, starts: Positions) -> Scores:
        return predictions.scores(chrom, starts, config.placement)

    scores = bins.scores(scorer)
    missing = np.isnan(scores)
    num_missing, num_unknown = int(missing.sum()), 0
    notes = []
    if num_missing:
        unknown = missing & without_bases(bins, missing, dataset)
        num_unknown = int(unknown.sum())
        if config.missing == "error" and num_missing > num_unknown:
            raise _missing_error(
                contender, bins, (int(np.argmax(missing & ~unknown)), num_missing - num_unknown), predictions.min_score
            )
        lowest = min(0.0, float(np.nanmin(scores)) if num_missing < len(scores) else 0.0)
        scores[missing] = lowest
        notes.append(_missing_note(num_missing, num_unknown, lowest))
    calibrated = measures.are_probabilities(scores)
    if not calibrated:
        low, high = float(scores.min()), float(scores.max())
        notes.append(f"scores from {low:.3g} to {high:.3g} are ranked; they are no probabilities, so not calibrated")
    own = {"name": contender.path.name, **file_entry(contender.path)} if contender.path.is_file() else {}
    sheet.add(
        (contender.name, contender.kind, "; ".join(notes)),
        scores,
        scorer,
        held_out=opened.verdict,
        missing_bins=num_missing,
        unknown_bins=num_unknown,
        reliability=measures.reliability(scores, bins.bound) if calibrated else None,
        provenance={"path": str(contender.path), "format": predictions.format, **own, **_origin(opened.sidecar)},
    )


def _missing_note(num_missing: int, num_unknown: int, value: float) -> str:
    of_them = ""
    if num_unknown:
        of_them = f" ({num_unknown:,} of them hold no known base)" if num_missing > num_unknown else ", all of N only"
    return f"{num_missing:,} bins without a score count as {value:g}{of_them}"


def _origin(sidecar: Mapping[str, Any] | None) -> dict[str, Any]:
    """What of a sidecar belongs in the report."""
    kept = ("model", "trained_on", "pretrained_on", "created_utc")
    return {key: sidecar[key] for key in kept if key in sidecar} if sidecar else {}


def _missing_error(
    contender: Contender, bins: EvaluatedBins, missing: tuple[int, int], min_score: float | None
) -> InputError:
    """What to say of missing bins: (the first, how many)."""
    first, num_missing = missing
    chrom, start = bins.place(first)
    left_out = "" if min_score is None else f"bins under {min_score:g} were left out when it was written; "
    return InputError(
        contender.path,
        f"has no score for {num_missing:,} of {len(bins):,} bins; the first is {chrom}:{start:,}",
        f"{left_out}--missing zero counts them as the lowest score; or evaluate other chromosomes (--chrom), or lay "
        "the file's values on bins in another way (--placement)",
    )


def _score_baselines(setting: Setting, sheet: ScoreSheet, advance: Advance) -> list[Unavailable]:
    unavailable = []
    for baseline in baselines(setting):
        advance(len(sheet.bins), baseline.name)
        if isinstance(baseline, Unavailable):
            unavailable.append(baseline)
        else:
            scores = sheet.bins.scores(baseline.scores)
            sheet.add((baseline.name, "baseline", baseline.note), scores, baseline.scores)
    return unavailable
