"""Which files are scored against which truth: what a user named, sorted into pairs of TF and cell type."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from ebert_core.data.dataset import Dataset
from ebert_core.epigenome.cell_types import fold
from ebert_core.errors import EbertError, InputError, UnknownNameError
from ebert_core.evaluation.evaluate import Contender
from ebert_core.evaluation.truth import Excluded, Truth, truth_from_dataset, truth_from_peaks, truth_from_table
from ebert_core.genome.assembly import Assembly
from ebert_core.genome.intervals import Positions, merge
from ebert_core.io.bed import merged_regions
from ebert_core.io.bigwig import BigWigReader, is_bigwig
from ebert_core.io.predictions import find_predictions, read_sidecar

PREDICTIONS_FOLDER: Final = Path("predictions")

Pair = tuple[str, str]
Plan = dict[Pair, list[Contender]]


@dataclass(frozen=True)
class TruthFiles:
    """Truth that is not the dataset's: peak files, or a label table; and regions to leave out with peaks."""

    peaks: Path | None = None
    relaxed: Path | None = None
    labels: Path | None = None
    exclude: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        if self.peaks and self.labels:
            raise EbertError("--peaks and --labels were both given", "give one truth")
        if self.relaxed and not self.peaks:
            raise EbertError("--relaxed was given without --peaks", "name the conservative peaks with --peaks")
        if self.exclude and not self.peaks:
            raise EbertError("--exclude was given without --peaks", "other truths have their bins already")

    def __bool__(self) -> bool:
        return bool(self.peaks or self.labels)


def make_plan(
    paths: Sequence[Path],
    comparisons: Sequence[str],
    tf: str | None,
    cell: str | None,
    dataset: Dataset | None,
    *,
    known_only: bool = True,
) -> Plan:
    """Sort prediction files into pairs.

    Args:
        paths: prediction files; none for all in `predictions/` that say what they are.
        comparisons: `NAME=FILE` or `TF.CELL:NAME=FILE`.
        tf, cell: what files without a sidecar are of; of those with one, only these are taken.
        dataset: to spell names as it does.
        known_only: whether a name that the dataset lacks is an error; it is none where the truth comes from elsewhere.

    Raises:
        UnknownNameError: `known_only`, and the dataset lacks the name.
        EbertError: no file, a file of unknown TF or cell type, or a comparison that fits no pair.
    """
    if dataset:
        tf = _spelt(dataset.resolve_tf, tf, known_only)
        cell = _spelt(dataset.resolve_cell, cell, known_only)
    plan: Plan = {}
    for path in paths or find_predictions(PREDICTIONS_FOLDER):
        pair = _pair_of(path, tf, cell)
        if (tf and not _same(pair[0], tf)) or (cell and not _same(pair[1], cell)):
            if paths:
                raise InputError(path, f"is of {pair[0]} in {pair[1]}, not of {tf or pair[0]} in {cell or pair[1]}")
            continue
        plan.setdefault(pair, []).append(Contender(path.name, path))
    if not plan and tf and cell and comparisons:
        plan[(tf, cell)] = []
    if not plan:
        wanted = " ".join(name for name in (tf, cell and f"in {cell}") if name)
        raise EbertError(
            f"no predictions{f' of {wanted}' if wanted else ''} in {PREDICTIONS_FOLDER}",
            "make some with `ebert predict`, or name files: ebert evaluate FILE --tf TF --cell CELL",
        )
    for comparison in comparisons:
        pair, contender = _comparison(comparison, plan)
        plan[pair].append(contender)
    return {pair: _named_apart(contenders) for pair, contenders in plan.items()}


def _spelt(resolve: Callable[[str], str], name: str | None, known_only: bool) -> str | None:
    try:
        return resolve(name) if name else name
    except UnknownNameError:
        if known_only:
            raise
        return name


def _pair_of(path: Path, tf: str | None, cell: str | None) -> Pair:
    sidecar = read_sidecar(path)
    if sidecar:
        return sidecar["tf"], sidecar["cell"]
    if not path.exists() and str(path) != "-":
        raise InputError(path, "is not there", "check the path, or make predictions with `ebert predict`")
    if not tf or not cell:
        raise InputError(path, "does not say which TF and cell type it is of", "say so with --tf and --cell")
    return tf, cell


def _same(a: str, b: str) -> bool:
    return fold(a) == fold(b)


def _comparison(text: str, plan: Plan) -> tuple[Pair, Contender]:
    name, equals, file = text.partition("=")
    if not equals or not name.strip() or not file.strip():
        raise EbertError(f"--compare {text!r} is not NAME=FILE", "for example --compare other=other/CTCF.K562.bw")
    path, pairs = Path(file.strip()), {f"{tf}.{cell}".casefold(): (tf, cell) for tf, cell in plan}
    prefix, colon, rest = name.partition(":")
    if colon and prefix.strip().casefold() in pairs:
        return pairs[prefix.strip().casefold()], Contender(rest.strip(), path, "comparison")
    sidecar = read_sidecar(path)
    if sidecar and (pair := (sidecar["tf"], sidecar["cell"])) in plan:
        return pair, Contender(name.strip(), path, "comparison")
    if len(plan) > 1 or sidecar:
        raise EbertError(
            f"--compare {text!r} belongs to none of the evaluated pairs",
            f"write TF.CELL:NAME=FILE with one of {', '.join(f'{tf}.{cell}' for tf, cell in plan)}",
        )
    return next(iter(plan)), Contender(name.strip(), path, "comparison")


def _named_apart(contenders: Iterable[Contender]) -> list[Contender]:
    """Files of one name in several folders are called by their whole path."""
    contenders = list(contenders)
    names = [contender.name for contender in contenders]
    return [
        Contender(str(each.path), each.path, each.kind)
        if each.kind == "prediction" and names.count(each.name) > 1
        else each
        for each in contenders
    ]


def open_dataset(path: Path, truth_files: TruthFiles) -> Dataset | None:
    """The dataset; None where there is none and the truth comes from elsewhere."""
    return None if truth_files and not path.exists() else Dataset.open(path)


def find_truth(pair: Pair, truth_files: TruthFiles, plan: Plan, dataset: Dataset | None) -> Truth:
    """The truth of one pair.

    Raises:
        EbertError: peaks given for several pairs, or no dataset and no bigWig to take chromosome sizes from.
    """
    if not truth_files:
        assert dataset is not None
        return truth_from_dataset(dataset, *pair)
    assembly = dataset.assembly if dataset else _assembly_of(plan[pair])
    if truth_files.labels:
        return truth_from_table(truth_files.labels, assembly, *pair)
    assert truth_files.peaks is not None
    if len(plan) > 1:
        raise EbertError(f"--peaks are of one pair, the predictions of {len(plan)}", "choose one with --tf and --cell")
    excluded = _excluded(truth_files, assembly, dataset)
    return truth_from_peaks(pair, assembly, excluded, truth_files.peaks, truth_files.relaxed)


def _excluded(truth_files: TruthFiles, assembly: Assembly, dataset: Dataset | None) -> Excluded:
    """The regions left out of the bins: those given and the dataset's."""
    given, _ = merged_regions(truth_files.exclude, assembly)

    def on(chrom: str) -> tuple[Positions, Positions]:
        parts = [(np.empty(0, np.int64), np.empty(0, np.int64))]
        parts += [given[chrom]] if chrom in given else []
        parts += [dataset.excluded(chrom)] if dataset else []
        return merge(np.concatenate([starts for starts, _ in parts]), np.concatenate([ends for _, ends in parts]))

    return on


def _assembly_of(contenders: Iterable[Contender]) -> Assembly:
    """Chromosome sizes from the first bigWig."""
    for contender in contenders:
        if contender.path.is_file() and is_bigwig(contender.path):
            with BigWigReader(contender.path) as reader:
                return Assembly.from_sizes(reader.sizes.items())
    raise EbertError(
        "the sizes of the chromosomes are not known", "name a dataset with --dataset, or evaluate a bigWig file"
    )
