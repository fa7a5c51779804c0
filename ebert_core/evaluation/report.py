"""The report: one self-contained HTML page, and the same figures as JSON and TSV (docs/formats.md)."""

from __future__ import annotations

import csv
import io
import json
import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import jinja2

from ebert_core import __version__
from ebert_core.artifacts import MANIFEST_NAME, build_manifest, file_entry, publish_folder
from ebert_core.evaluation import figures
from ebert_core.evaluation.measures import FDR_PERCENTS, Measures, Reliability
from ebert_core.evaluation.results import Evaluation, Row

REPORT_FORMAT: Final = 1
HTML_NAME, JSON_NAME, TSV_NAME = "report.html", "report.json", "report.tsv"
_MEASURES: Final = (
    "num_bins", "num_bound", "prevalence", "auroc", "auprc", "average_precision",
    *(f"recall_at_{percent}_fdr" for percent in FDR_PERCENTS),
)  # fmt: skip
_RANKED: Final = _MEASURES[3:]
TSV_COLUMNS: Final = ("tf", "cell", "chrom", "name", "kind", "held_out", *_MEASURES, "brier", "missing_bins")


def write_report(folder: Path, evaluations: Sequence[Evaluation], *, overwrite: bool = False) -> Path:
    """Write a report folder and return the path of its page.

    Raises:
        OutputExistsError: the folder is there and `overwrite` is not set.
    """
    content = _content(evaluations)
    with publish_folder(folder, overwrite=overwrite) as staged:
        (staged / JSON_NAME).write_text(to_json(content), encoding="utf-8")
        (staged / TSV_NAME).write_text(to_tsv(evaluations), encoding="utf-8")
        (staged / HTML_NAME).write_text(to_html(evaluations, content), encoding="utf-8")
        files = {name: file_entry(staged / name) for name in (HTML_NAME, JSON_NAME, TSV_NAME)}
        pairs = [{"tf": each.tf, "cell": each.cell, "chroms": each.chroms} for each in evaluations]
        manifest = build_manifest("report", REPORT_FORMAT, {"pairs": pairs, "files": files})
        (staged / MANIFEST_NAME).write_text(to_json(manifest), encoding="utf-8")
    return folder / HTML_NAME


def _content(evaluations: Sequence[Evaluation]) -> dict[str, Any]:
    return build_manifest("report", REPORT_FORMAT, {"evaluations": [as_json(each) for each in evaluations]})


def to_json_text(evaluations: Sequence[Evaluation]) -> str:
    """The content of report.json."""
    return to_json(_content(evaluations))


def to_json(value: Any) -> str:
    """JSON with a two-space indent; a number that is none becomes null."""
    return json.dumps(_finite(value), indent=2) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def as_json(evaluation: Evaluation) -> dict[str, Any]:
    """An evaluation as JSON values, with the stable keys of report.json."""
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
        "rows": [_row_as_json(row) for row in evaluation.rows],
        "unavailable": [{"name": each.name, "reason": each.reason} for each in evaluation.unavailable],
        "notes": list(evaluation.notes),
        "provenance": evaluation.provenance,
    }


def _row_as_json(row: Row) -> dict[str, Any]:
    return {
        "name": row.name,
        "kind": row.kind,
        "note": row.note,
        "held_out": {"status": row.held_out.status, "text": row.held_out.text} if row.held_out else None,
        "measures": row.measures.as_dict(),
        "measures_by_chrom": {
            chrom: measures.as_dict() if measures else None for chrom, measures in row.by_chrom.items()
        },
        "missing_bins": row.missing_bins,
        "bins_without_known_base": row.unknown_bins,
        "calibration": _reliability_as_json(row.reliability) if row.reliability else None,
        "pr_curve": {"recall": row.pr_curve[0].tolist(), "precision": row.pr_curve[1].tolist()},
        "roc_curve": {"false_positive_rate": row.roc_curve[0].tolist(), "recall": row.roc_curve[1].tolist()},
        "provenance": row.provenance,
    }


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


def to_tsv(evaluations: Sequence[Evaluation]) -> str:
    """One line per row and chromosome ('all' for the whole), columns `TSV_COLUMNS`; empty where unknown."""
    text = io.StringIO()
    writer = csv.writer(text, delimiter="\t", lineterminator="\n")
    writer.writerow(TSV_COLUMNS)
    for evaluation in evaluations:
        for row in evaluation.rows:
            status = row.held_out.status if row.held_out else ""
            parts: dict[str, Measures | None] = {"all": row.measures}
            if len(row.by_chrom) > 1:
                parts |= row.by_chrom
            for chrom, measures in parts.items():
                whole = chrom == "all"
                brier = row.reliability.brier if row.reliability and whole else ""
                values = measures.as_dict() if measures else dict.fromkeys(_MEASURES, "")
                writer.writerow(
                    [evaluation.tf, evaluation.cell, chrom, row.name, row.kind, status]
                    + [values[key] for key in _MEASURES]
                    + [brier, row.missing_bins if whole else ""]
                )
    return text.getvalue()


def to_html(evaluations: Sequence[Evaluation], manifest: dict[str, Any]) -> str:
    """The page: no script, no network, every name escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = lambda value: f"{value:,}"
    environment.filters["share"] = _share
    environment.filters["measure"] = lambda value: f"{value:.3f}"
    return environment.get_template("report.html.j2").render(
        version=__version__,
        created=manifest["created_utc"],
        command=shlex.join(manifest["command"]),
        sections=[_section(evaluation) for evaluation in evaluations],
        figures=figures,
        percents=FDR_PERCENTS,
    )


def _section(evaluation: Evaluation) -> dict[str, Any]:
    """What the template needs of one pair beyond the evaluation itself."""
    baselines = [row for row in evaluation.rows if row.kind == "baseline"]
    files = [row for row in evaluation.rows if row.kind != "baseline"]
    return {
        "evaluation": evaluation,
        "files": files,
        "best_baseline": _best(baselines, "auprc"),
        "best_baselines": {key: _best(baselines, key) for key in _RANKED},
        "best": {key: max((row.measures.as_dict()[key] for row in evaluation.rows), default=None) for key in _RANKED},
        "styles": figures.colours(evaluation),
        "pr": figures.curve_lines(evaluation, "pr"),
        "roc": figures.curve_lines(evaluation, "roc"),
        "reliability": figures.reliability_dots(evaluation),
        "prevalence": evaluation.rows[0].measures.prevalence if evaluation.rows else None,
    }


def _best(rows: Sequence[Row], key: str) -> Row | None:
    return max(rows, key=lambda row: row.measures.as_dict()[key], default=None)


def _share(fraction: float) -> str:
    """A fraction as percent with three significant digits."""
    return f"{100 * fraction:.3g} %"
