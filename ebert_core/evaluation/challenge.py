"""The final round of the ENCODE-DREAM challenge: predictions of its pairs, scored and ranked as it did."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from ebert_core.data.dataset import Dataset
from ebert_core.errors import EbertError, InputError
from ebert_core.evaluation.evaluate import Contender, EvaluationConfig, evaluate
from ebert_core.evaluation.plan import PREDICTIONS_FOLDER, expand, pair_of
from ebert_core.evaluation.ranking import FINAL_PAIRS, RANKED_CHROMS, final_pair, rank_entry
from ebert_core.evaluation.results import ChallengeRanks, Evaluation
from ebert_core.evaluation.truth import Truth
from ebert_core.evaluation.truth_files import TruthFiles, find_truth
from ebert_core.io.submissions import submission_name
from ebert_core.reporting import SILENT, Reporter

# Rows of the challenge's region file on the chromosomes that it ranked by.
RANKED_ROWS: Final = {"chr1": 4_980_065, "chr8": 2_905_087, "chr21": 957_859}
WHERE_LABELS_ARE: Final = (
    "the challenge's held-out labels come from its Synapse project, syn6131484 (docs/evaluation.md)"
)

_NAME: Final = re.compile(
    r"(?:[LFB]\.)?(?P<tf>[^.]+)\.(?P<cell>[^.]+)\.(?:bw|bigwig|bed|bedgraph|tab|tsv)(?:\.gz)?", re.IGNORECASE
)

Pair = tuple[str, str]


def find_entry(paths: Sequence[Path]) -> tuple[dict[Pair, Path], list[str]]:
    """The files of one entry: (final pair -> file in the order of `FINAL_PAIRS`, notes on files of other pairs).

    Args:
        paths: files, or folders of submissions, of predictions by `ebert predict`, and of files called `TF.CELL.bw`
            after a final pair; none for `predictions/`.

    Raises:
        InputError: two files for one pair, or a file that does not say what it is of.
        EbertError: no file of a final pair.
    """
    found: dict[Pair, Path] = {}
    others = []
    for path in expand(paths or [PREDICTIONS_FOLDER], _named):
        tf, cell = pair_of(path, *(_named(path) or (None, None)))
        pair = final_pair(tf, cell)
        if pair is None:
            others.append(f"{path.name}: {tf} in {cell} is no pair of the final round and was left out")
        elif pair in found:
            raise InputError(
                path, f"is the second prediction for {tf} in {cell}", f"the first is {found[pair]}; an entry has one"
            )
        else:
            found[pair] = path
    if not found:
        shown = ", ".join(f"{tf} in {cell}" for tf, cell in FINAL_PAIRS)
        raise EbertError("there is no prediction of a pair of the final round", f"the pairs are {shown}")
    return {pair: found[pair] for pair in FINAL_PAIRS if pair in found}, others


def _named(path: Path) -> Pair | None:
    """The pair that a file's name tells: of a submission, or `TF.CELL.bw` and the like of a final pair; else None."""
    if named := submission_name(path):
        return named[1:]
    match = _NAME.fullmatch(path.name)
    return (match["tf"], match["cell"]) if match and final_pair(match["tf"], match["cell"]) else None


def final_round(
    name: str,
    paths: Sequence[Path],
    truth_files: TruthFiles,
    config: EvaluationConfig,
    dataset: Dataset | None = None,
    reporter: Reporter = SILENT,
) -> tuple[list[Evaluation], ChallengeRanks]:
    """Score an entry on chr1, chr8 and chr21 and rank it among the entries of the final round.

    Args:
        name: what the entry is called in the tables.
        paths: see `find_entry`.
        truth_files: the challenge's label tables (a folder), else the dataset's labels.
        config: how to evaluate; its chromosomes are replaced by the challenge's.

    Raises:
        EbertError: labels that do not cover the challenge's rows; else as `evaluate`.
    """
    entry, notes = find_entry(paths)
    for note in notes:
        reporter.warn(note)
    ranked = replace(config, chroms=RANKED_CHROMS, subsamples=True)
    truths = {pair: find_truth(pair, truth_files, [path], dataset) for pair, path in entry.items()}
    evaluations = []
    for pair, path in entry.items():
        _require_rows(truths[pair])
        evaluations.append(evaluate(ranked, truths[pair], [Contender(path.name, path)], dataset, reporter))
    scores = {
        pair: subsamples
        for pair, each in zip(entry, evaluations, strict=True)
        if (subsamples := each.rows[0].subsamples) is not None
    }
    return evaluations, rank_entry(name, scores)


def _require_rows(truth: Truth) -> None:
    """Refuse labels on other bins than the challenge's: ranks against its teams would mean nothing."""
    for chrom, expected in RANKED_ROWS.items():
        found = len(truth.on(chrom)[0]) if chrom in truth.chroms else 0
        if found != expected:
            raise EbertError(
                f"the labels of {truth.tf} in {truth.cell} have {found:,} rows on {chrom}, the challenge has "
                f"{expected:,} ({truth.source})",
                WHERE_LABELS_ARE,
            )
