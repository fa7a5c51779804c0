"""The report's figures as JSON and TSV; docs/formats.md lists every key and column."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

from ebert_core.evaluation.held_out import HeldOut
from ebert_core.evaluation.measures import FDR_PERCENTS, Measures, Reliability
from ebert_core.evaluation.ranking import SUBSAMPLE_MEASURES
from ebert_core.evaluation.results import ChallengeRanks, Evaluation, Locus, Row
from ebert_core.genome.labels import AMBIGUOUS, BOUND, UNBOUND

MEASURES: Final = (
    "num_bins", "num_bound", "prevalence", "auroc", "auprc", "average_precision",
    *(f"recall_at_{percent}_fdr" for percent in FDR_PERCENTS),
)  # fmt: skip
RANKED: Final = MEASURES[3:]
TSV_COLUMNS: Final = (
    "tf", "cell", "chrom", "name", "kind", "held_out", *MEASURES, "brier", "missing_bins",
    *(f"{key}_{end}" for key in RANKED for end in ("lower", "upper")),
)  # fmt: skip
STATE_COLUMNS: Final = ("tf", "cell", "state", "color", "name", "kind", *MEASURES)
DIFFERENCE_COLUMNS: Final = (
    "tf", "cell", "first", "second", "measure", "difference", "lower", "upper", "share_above", "verdict",
)  # fmt: skip
RANK_COLUMNS: Final = ("tf", "cell", "rank", "num_entries", "auprc", "best_auprc", "best_team")
STANDING_COLUMNS: Final = ("rank", "score", "name", "own")
LABEL_WORDS: Final = {UNBOUND: "unbound", AMBIGUOUS: "ambiguous", BOUND: "bound"}


def state_names(evaluation: Evaluation) -> dict[int, str]:
    """Name of each state code that an evaluation mentions; of one without an evaluated bin, its code."""
    codes = {code for row in evaluation.rows for code in row.by_state}
    codes |= {code for locus in evaluation.loci for _, _, code in locus.states or ()}
    unnamed = {code: f"state {code}" if code else "unknown" for code in sorted(codes)}
    return unnamed | {state.code: state.name for state in evaluation.states}


def to_json(value: Any) -> str:
    """JSON with a two-space indent; a number that is none becomes null, and a list of numbers is one line."""
    text = json.dumps(_finite(value), indent=2)
    # No line break stands within a JSON string, so only a list can match.
    return re.sub(r'\[\n\s*([^\[\]{}"]*?)\n\s*\]', lambda found: f"[{' '.join(found[1].split())}]", text) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def as_json(evaluation: Evaluation) -> dict[str, Any]:
    """An evaluation as JSON values, with the stable keys of report.json."""
    settings = evaluation.bootstrap
    return {
        "tf": evaluation.tf,
        "cell": evaluation.cell,
        "chroms": list(evaluation.chroms),
        "assembly": evaluation.assembly,
        "truth": evaluation.truth,
        "placement": evaluation.placement[0],
        "missing": evaluation.missing[0],
        "bins": {label: evaluation.total(label) for label in ("bound", "unbound", "ambiguous")},
        "bins_by_chrom": evaluation.counts,
        "bootstrap": {
            "replicates": settings.replicates,
            "block_bp": settings.block_bp,
            "num_blocks": settings.num_blocks,
            "seed": settings.seed,
            "level": settings.level,
        }
        if settings
        else None,
        "rows": [_row_as_json(row, state_names(evaluation)) for row in evaluation.rows],
        "differences": [
            {
                "first": each.first,
                "second": each.second,
                "measure": each.measure,
                "difference": each.value,
                "lower": each.interval.lower,
                "upper": each.interval.upper,
                "share_above": each.share_above,
                "verdict": each.verdict,
            }
            for each in evaluation.differences
        ],
        "states": [
            {"code": each.code, "name": each.name, "color": each.color, "bound": each.bound, "unbound": each.unbound}
            for each in evaluation.states
        ],
        "loci": [_locus_as_json(locus) for locus in evaluation.loci],
        "unavailable": [{"name": each.name, "reason": each.reason} for each in evaluation.unavailable],
        "notes": list(evaluation.notes),
        "provenance": evaluation.provenance,
    }


def _row_as_json(row: Row, names: dict[int, str]) -> dict[str, Any]:
    return {
        "name": row.name,
        "kind": row.kind,
        "note": row.note,
        "held_out": _held_out_as_json(row.held_out) if row.held_out else None,
        "measures": row.measures.as_dict(),
        "intervals": {key: {"lower": each.lower, "upper": each.upper} for key, each in row.intervals.items()},
        "measures_by_chrom": {chrom: _measures(each) for chrom, each in row.by_chrom.items()},
        "measures_by_state": {names[code]: _measures(each) for code, each in row.by_state.items()},
        "subsamples": None
        if row.subsamples is None
        else {key: row.subsamples[:, at].tolist() for at, key in enumerate(SUBSAMPLE_MEASURES)},
        "missing_bins": row.missing_bins,
        "bins_without_known_base": row.unknown_bins,
        "calibration": _reliability_as_json(row.reliability) if row.reliability else None,
        "pr_curve": {"recall": row.pr_curve[0].tolist(), "precision": row.pr_curve[1].tolist()},
        "roc_curve": {"false_positive_rate": row.roc_curve[0].tolist(), "recall": row.roc_curve[1].tolist()},
        "provenance": row.provenance,
    }


def _held_out_as_json(verdict: HeldOut) -> dict[str, Any]:
    return {
        "status": verdict.status,
        "text": verdict.text,
        "same_cell": verdict.same_cell,
        "trained_bins": verdict.trained_bins,
    }


def _measures(measures: Measures | None) -> dict[str, float | int] | None:
    return measures.as_dict() if measures else None


def _reliability_as_json(table: Reliability) -> dict[str, Any]:
    return {
        "brier": table.brier,
        "classes": [
            {"from": lower, "to": upper, "bins": count, "mean_score": mean, "bound_fraction": fraction}
            for lower, upper, count, mean, fraction in zip(
                table.edges[:-1].tolist(),
                table.edges[1:].tolist(),
                table.counts.tolist(),
                table.mean_score.tolist(),
                table.bound_fraction.tolist(),
                strict=True,
            )
        ],
    }


def _locus_as_json(locus: Locus) -> dict[str, Any]:
    states = None if locus.states is None else [list(run) for run in locus.states]
    return {
        "kind": locus.kind,
        "chrom": locus.chrom,
        "start": locus.start,
        "end": locus.end,
        "bin_start": locus.bin_start,
        "label": LABEL_WORDS[locus.label],
        "score": locus.score,
        "states": states,
        "labels": [[start, end, LABEL_WORDS[label]] for start, end, label in locus.labels],
        "tracks": [
            # The shortest decimals that are the float32: .87, not .8700000047683716.
            {"name": name, "starts": starts.tolist(), "scores": scores.astype(str).astype(float).tolist()}
            for name, (starts, scores) in locus.tracks.items()
        ],
    }


def ranks_as_json(ranks: ChallengeRanks | None) -> dict[str, Any] | None:
    """The final round as JSON values, the `ranks` of report.json."""
    if ranks is None:
        return None
    return {
        "name": ranks.name,
        "wins": ranks.wins,
        "pairs": [
            {
                "tf": each.tf,
                "cell": each.cell,
                "rank": each.rank,
                "num_entries": each.num_entries,
                "auprc": each.auprc,
                "best_auprc": each.best_auprc,
                "best_team": each.best_team,
            }
            for each in ranks.pairs
        ],
        "missing": [{"tf": tf, "cell": cell} for tf, cell in ranks.missing],
        "overall": [
            {"rank": each.rank, "score": each.score, "name": each.name, "own": each.own} for each in ranks.overall
        ],
        "source": ranks.source,
    }


def to_tsv(evaluations: Sequence[Evaluation]) -> str:
    """One line per row and chromosome ('all' for the whole), columns `TSV_COLUMNS`; empty where unknown."""
    return _tsv(
        TSV_COLUMNS,
        (line for evaluation in evaluations for row in evaluation.rows for line in _lines_of_row(evaluation, row)),
    )


def _lines_of_row(evaluation: Evaluation, row: Row) -> Iterable[list[Any]]:
    status = row.held_out.status if row.held_out else ""
    parts: dict[str, Measures | None] = {"all": row.measures}
    if len(row.by_chrom) > 1:
        parts |= row.by_chrom
    for chrom, measures in parts.items():
        whole = chrom == "all"
        intervals = row.intervals if whole else {}
        ends = [(intervals[key].lower, intervals[key].upper) if key in intervals else ("", "") for key in RANKED]
        yield [
            *(evaluation.tf, evaluation.cell, chrom, row.name, row.kind, status),
            *_columns(measures),
            row.reliability.brier if row.reliability and whole else "",
            row.missing_bins if whole else "",
            *(end for pair in ends for end in pair),
        ]


def states_tsv(evaluations: Sequence[Evaluation]) -> str:
    """One line per state and row, columns `STATE_COLUMNS`; measures are empty without bound or unbound bins."""
    return _tsv(
        STATE_COLUMNS,
        (
            [evaluation.tf, evaluation.cell, state.name, state.color, row.name, row.kind]
            + (
                _columns(measures)
                if (measures := row.by_state.get(state.code))
                else _counts(state.bound, state.unbound)
            )
            for evaluation in evaluations
            for state in evaluation.states
            for row in evaluation.rows
        ),
    )


def differences_tsv(evaluations: Sequence[Evaluation]) -> str:
    """One line per pair of rows and measure, columns `DIFFERENCE_COLUMNS`."""
    return _tsv(
        DIFFERENCE_COLUMNS,
        (
            (
                *(evaluation.tf, evaluation.cell, each.first, each.second, each.measure, each.value),
                *(each.interval.lower, each.interval.upper, each.share_above, each.verdict),
            )
            for evaluation in evaluations
            for each in evaluation.differences
        ),
    )


def ranks_tsv(ranks: ChallengeRanks) -> str:
    """One line per final pair, columns `RANK_COLUMNS`; only TF and cell type of a missing pair."""
    lines: list[list[Any]] = [
        [each.tf, each.cell, each.rank, each.num_entries, each.auprc, each.best_auprc, each.best_team]
        for each in ranks.pairs
    ]
    return _tsv(RANK_COLUMNS, lines + [[tf, cell, "", "", "", "", ""] for tf, cell in ranks.missing])


def standings_tsv(ranks: ChallengeRanks) -> str:
    """One line per entry of the overall table, best first, columns `STANDING_COLUMNS`."""
    return _tsv(STANDING_COLUMNS, ([e.rank, e.score, e.name, "yes" if e.own else "no"] for e in ranks.overall))


def _columns(measures: Measures | None) -> list[Any]:
    return [measures.as_dict()[key] for key in MEASURES] if measures else [""] * len(MEASURES)


def _counts(bound: int, unbound: int) -> list[Any]:
    total = bound + unbound
    return [total, bound, bound / total if total else "", *[""] * len(RANKED)]


def _tsv(columns: Sequence[str], lines: Iterable[Sequence[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, delimiter="\t", lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(lines)
    return text.getvalue()
