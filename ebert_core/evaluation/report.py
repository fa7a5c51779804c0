"""The report: one self-contained HTML page, and the same figures as JSON and TSV (docs/formats.md)."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import jinja2
import markupsafe

from ebert_core import __version__
from ebert_core.artifacts import MANIFEST_NAME, build_manifest, file_entry, publish_folder
from ebert_core.evaluation import browser, figures, tables
from ebert_core.evaluation.measures import FDR_PERCENTS, Measures
from ebert_core.evaluation.ranking import final_pair
from ebert_core.evaluation.results import ChallengeRanks, Difference, Evaluation, Interval, OverallRank, Row

REPORT_FORMAT: Final = 1
HTML_NAME, JSON_NAME, TSV_NAME = "report.html", "report.json", "report.tsv"
STATES_NAME, DIFFERENCES_NAME, RANKS_NAME, STANDINGS_NAME = (
    "states.tsv", "differences.tsv", "ranks.tsv", "standings.tsv",
)  # fmt: skip
_TITLES: Final = {
    "auprc": "auPRC",
    "auroc": "auROC",
    "average_precision": "average<br>precision",
    **{f"recall_at_{percent}_fdr": f"recall at<br>{percent} % FDR" for percent in FDR_PERCENTS},
}
# Of a long overall table the page shows its top and what stands beside the user's entry.
_TOP, _BESIDE = 12, 2

to_tsv = tables.to_tsv


def write_report(
    folder: Path, evaluations: Sequence[Evaluation], ranks: ChallengeRanks | None = None, *, overwrite: bool = False
) -> Path:
    """Write a report folder and return the path of its page.

    Args:
        ranks: the challenge's final round with these predictions, where it was asked for.

    Raises:
        OutputExistsError: the folder is there and `overwrite` is not set.
    """
    content = _content(evaluations, ranks)
    texts = {
        HTML_NAME: to_html(evaluations, content, ranks),
        JSON_NAME: tables.to_json(content),
        TSV_NAME: to_tsv(evaluations),
    }
    if any(each.states for each in evaluations):
        texts[STATES_NAME] = tables.states_tsv(evaluations)
    if any(each.differences for each in evaluations):
        texts[DIFFERENCES_NAME] = tables.differences_tsv(evaluations)
    if ranks:
        texts |= {RANKS_NAME: tables.ranks_tsv(ranks), STANDINGS_NAME: tables.standings_tsv(ranks)}
    with publish_folder(folder, overwrite=overwrite) as staged:
        for name, text in texts.items():
            (staged / name).write_text(text, encoding="utf-8")
        files = {name: file_entry(staged / name) for name in texts}
        pairs = [{"tf": each.tf, "cell": each.cell, "chroms": each.chroms} for each in evaluations]
        manifest = build_manifest("report", REPORT_FORMAT, {"pairs": pairs, "files": files})
        (staged / MANIFEST_NAME).write_text(tables.to_json(manifest), encoding="utf-8")
    return folder / HTML_NAME


def _content(evaluations: Sequence[Evaluation], ranks: ChallengeRanks | None) -> dict[str, Any]:
    body = {"evaluations": [tables.as_json(each) for each in evaluations], "ranks": tables.ranks_as_json(ranks)}
    return build_manifest("report", REPORT_FORMAT, body)


def to_json_text(evaluations: Sequence[Evaluation], ranks: ChallengeRanks | None = None) -> str:
    """The content of report.json."""
    return tables.to_json(_content(evaluations, ranks))


def to_html(evaluations: Sequence[Evaluation], manifest: Mapping[str, Any], ranks: ChallengeRanks | None = None) -> str:
    """The page: no script, no network (its own policy forbids both to the browser), every name escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= _FILTERS
    environment.globals |= {"figures": figures, "geometry": browser}
    anchors = {final_pair(each.tf, each.cell): f"pair-{number}" for number, each in enumerate(evaluations, start=1)}
    return environment.get_template("report.html.j2").render(
        version=__version__,
        created=manifest["created_utc"],
        command=shlex.join(manifest["command"]),
        heading=_heading(evaluations),
        sections=[_section(evaluation) for evaluation in evaluations],
        intervals=any(each.bootstrap for each in evaluations),
        percents=FDR_PERCENTS,
        titles=_TITLES,
        ranks=ranks,
        standings=_standings(ranks.overall) if ranks else [],
        anchors=anchors,
    )


def _heading(evaluations: Sequence[Evaluation]) -> str:
    if len(evaluations) == 1:
        return f"{evaluations[0].tf} in {evaluations[0].cell}"
    return f"{len(evaluations)} pairs of transcription factor and cell type"


def _section(evaluation: Evaluation) -> dict[str, Any]:
    """What the template needs of one pair beyond the evaluation itself."""
    baselines = [row for row in evaluation.rows if row.kind == "baseline"]
    files = [row for row in evaluation.rows if row.kind != "baseline"]
    styles = figures.colours(evaluation)
    return {
        "evaluation": evaluation,
        "files": files,
        "best_baseline": _best(baselines, "auprc"),
        "best_baselines": {key: _best(baselines, key) for key in tables.RANKED},
        "best": {
            key: max((row.measures.as_dict()[key] for row in evaluation.rows), default=None) for key in tables.RANKED
        },
        "styles": styles,
        "pr": figures.curve_lines(evaluation, "pr"),
        "roc": figures.curve_lines(evaluation, "roc"),
        "reliability": figures.reliability_dots(evaluation),
        "ranked_only": [row.name for row in files if row.reliability is None],
        "prevalence": evaluation.rows[0].measures.prevalence if evaluation.rows else None,
        "against": _against(evaluation.differences),
        "whiskers": figures.whiskers([each for each in evaluation.differences if each.measure == "auprc"]),
        "compared": [key for key in _TITLES if any(each.measure == key for each in evaluation.differences)],
        "chroms": _chrom_parts(evaluation, files, baselines),
        "states": _state_parts(evaluation, files, baselines),
        "browser": browser.browser(evaluation, styles),
    }


def _best(rows: Sequence[Row], key: str) -> Row | None:
    return max(rows, key=lambda row: row.measures.as_dict()[key], default=None)


def _against(differences: Sequence[Difference]) -> dict[str, dict[str, Difference]]:
    """Name of the other row -> measure -> difference."""
    found: dict[str, dict[str, Difference]] = {}
    for each in differences:
        found.setdefault(each.second, {})[each.measure] = each
    return found


@dataclass(frozen=True)
class _Part:
    """A line of a breakdown: what part, its bins, and the auPRC within it; None where there is none.

    Attributes:
        values: of each file.
        baseline: (name, auPRC) of the best baseline there.
        best: the highest of them all.
    """

    name: str
    color: str | None
    bound: int
    unbound: int
    ambiguous: int | None
    values: tuple[float | None, ...]
    baseline: tuple[str, float] | None
    best: float | None

    @property
    def bins(self) -> int:
        return self.bound + self.unbound

    @property
    def share(self) -> float:
        return self.bound / self.bins if self.bins else 0.0


def _chrom_parts(evaluation: Evaluation, files: Sequence[Row], baselines: Sequence[Row]) -> list[_Part]:
    parts = []
    for chrom in evaluation.chroms:
        counts = evaluation.counts[chrom]
        auprc = _auprc_in(files, baselines, lambda row, chrom=chrom: row.by_chrom.get(chrom))  # type: ignore[misc]
        parts.append(_Part(chrom, None, counts["bound"], counts["unbound"], counts["ambiguous"], *auprc))
    return parts


def _state_parts(evaluation: Evaluation, files: Sequence[Row], baselines: Sequence[Row]) -> list[_Part]:
    parts = []
    for state in evaluation.states:
        auprc = _auprc_in(files, baselines, lambda row, code=state.code: row.by_state.get(code))  # type: ignore[misc]
        parts.append(_Part(state.name, state.color, state.bound, state.unbound, None, *auprc))
    return parts


def _auprc_in(
    files: Sequence[Row], baselines: Sequence[Row], within: Callable[[Row], Measures | None]
) -> tuple[tuple[float | None, ...], tuple[str, float] | None, float | None]:
    """auPRC of each file, (name, auPRC) of the best baseline, and the highest, all within one part of the bins."""
    values = tuple(measures.auprc if (measures := within(row)) else None for row in files)
    of_baselines = [(row.name, measures.auprc) for row in baselines if (measures := within(row))]
    best = max(of_baselines, key=lambda each: each[1], default=None)
    known = [value for value in (*values, best[1] if best else None) if value is not None]
    return values, best, max(known, default=None)


def _standings(overall: Sequence[OverallRank]) -> list[OverallRank | None]:
    """The lines of the overall table that the page shows; None for a gap."""
    own = [number for number, entry in enumerate(overall) if entry.own]
    shown = [
        number for number in range(len(overall)) if number < _TOP or any(abs(number - mine) <= _BESIDE for mine in own)
    ]
    lines: list[OverallRank | None] = []
    for place, number in enumerate(shown):
        if place and number > shown[place - 1] + 1:
            lines.append(None)
        lines.append(overall[number])
    return [*lines, None] if shown and shown[-1] < len(overall) - 1 else lines


def _breakable(name: str) -> markupsafe.Markup:
    """A name that may be broken after the marks within it, escaped."""
    pieces = re.split(r"(?<=[._/-])(?=[^._/-])", name)
    return markupsafe.Markup("<wbr>").join(pieces)


def _share(fraction: float) -> str:
    """A fraction as percent with three significant digits."""
    return f"{100 * fraction:#.3g}".rstrip(".") + "\u00a0%"


def _signed(value: float) -> str:
    """Three decimals with a sign, a true minus among them; 0 has none."""
    text = f"{value:+.3f}"
    return text[1:] if float(text) == 0 else text.replace("-", browser.MINUS)


def _interval(interval: Interval) -> str:
    return f"{interval.lower:.3f}\u2013{interval.upper:.3f}"


def _bp(length: int) -> str:
    for unit, size in (("Mb", 1_000_000), ("kb", 1_000)):
        if length % size == 0:
            return f"{length // size:,} {unit}"
    return f"{length:,} bp"


_FILTERS: Final[dict[str, Callable[..., str]]] = {
    "number": lambda value: f"{value:,}",
    "share": _share,
    "percent": lambda level: f"{100 * level:g}\u00a0%",
    "measure": lambda value: f"{value:.3f}",
    "signed": _signed,
    "interval": _interval,
    "bp": _bp,
    "breakable": _breakable,
}
