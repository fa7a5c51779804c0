"""What `ebert evaluate` prints: a table per pair, what is better than what, and the ranks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.table import Table

from ebert_cli.console import stdout

if TYPE_CHECKING:
    from ebert_core.evaluation.results import ChallengeRanks, Difference, Evaluation, Row

_SHOWN: Final = (
    ("auprc", "auPRC"), ("auroc", "auROC"), ("recall_at_10_fdr", "recall at\n10 % FDR"),
    ("recall_at_50_fdr", "recall at\n50 % FDR"),
)  # fmt: skip
_TOP: Final = 10


def show(evaluation: Evaluation) -> None:
    """The table of one pair, and what stands below it."""
    bound, unbound = evaluation.total("bound"), evaluation.total("unbound")
    table = _table(
        f"{evaluation.tf} in {evaluation.cell} on {', '.join(evaluation.chroms)}",
        f"{bound:,} bound and {unbound:,} unbound bins ({bound / (bound + unbound):.3%} bound), "
        f"{evaluation.total('ambiguous'):,} ambiguous left out",
    )
    table.add_column("", overflow="fold")
    for key, heading in _SHOWN:
        table.add_column(heading, justify="right", no_wrap=True, vertical="top")
        if key == "auprc" and evaluation.bootstrap:
            table.add_column(f"{evaluation.bootstrap.level:.0%}\ninterval", justify="right", no_wrap=True)
    table.add_column("held out", no_wrap=True)
    for row in evaluation.rows:
        values = row.measures.as_dict()
        cells = [f"{values[key]:.3f}" for key, _ in _SHOWN]
        if evaluation.bootstrap:
            cells.insert(1, f"{row.intervals['auprc'].lower:.3f}-{row.intervals['auprc'].upper:.3f}")
        verdict = {"held out": "yes", "seen": "no, seen", "unknown": "unknown"}
        table.add_row(
            row.name,
            *cells,
            verdict[row.held_out.status] if row.held_out else "",
            style="bold" if row.kind == "prediction" else "",
        )
    stdout.print(table, soft_wrap=False)
    for line in [*_comparisons(evaluation), *_notes(evaluation)]:
        stdout.print(line, style="dim", markup=False, soft_wrap=False)
    stdout.print()


def _comparisons(evaluation: Evaluation) -> list[str]:
    """The first file against the other files and the best baseline, by auPRC."""
    files = [row.name for row in evaluation.rows if row.kind != "baseline"]
    baselines = [row for row in evaluation.rows if row.kind == "baseline"]
    best = max(baselines, key=lambda row: row.measures.auprc).name if baselines else None
    return [
        _comparison(each)
        for each in evaluation.differences
        if each.measure == "auprc" and (each.second in files or each.second == best)
    ]


def _comparison(each: Difference) -> str:
    if each.value == each.interval.lower == each.interval.upper == 0:
        return f"{each.first} and {each.second} have the same auPRC, in every resample"
    words = {"better": "is better than", "worse": "is worse than", "undecided": "cannot be told from"}
    return (
        f"{each.first} {words[each.verdict]} {each.second}: auPRC {each.value:+.3f} "
        f"({each.interval.lower:+.3f} to {each.interval.upper:+.3f}), above it in {each.share_above:.1%} "
        "of the resamples"
    )


def _notes(evaluation: Evaluation) -> list[str]:
    lines = [f"{row.name}: {_note(row)}" for row in evaluation.rows if row.kind != "baseline" and _note(row)]
    return lines + [
        f"{', '.join(names)} {'is' if len(names) == 1 else 'are'} not available: {reason}"
        for reason, names in evaluation.unavailable_by_reason.items()
    ]


def _note(row: Row) -> str:
    return "; ".join(part for part in (row.held_out.text if row.held_out else "", row.note) if part)


def show_ranks(ranks: ChallengeRanks) -> None:
    """Ranks per pair and overall, had the entry taken part."""
    table = _table(f"{ranks.name} in the final round of ENCODE-DREAM", f"other entries: {ranks.source}")
    table.add_column("")
    for heading in ("rank", "of", "auPRC", "best other\nauPRC"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("best other entry", overflow="fold")
    for pair in ranks.pairs:
        table.add_row(
            f"{pair.tf} in {pair.cell}",
            f"{pair.rank:g}",
            str(pair.num_entries),
            f"{pair.auprc:.3f}",
            f"{pair.best_auprc:.3f}",
            pair.best_team,
            style="bold" if pair.rank <= 1 else "",
        )
    stdout.print(table, soft_wrap=False)
    for tf, cell in ranks.missing:
        stdout.print(f"{tf} in {cell}: no prediction; it counts 0.5, the worst there is", style="dim", markup=False)
    stdout.print(f"first in {ranks.wins} of {len(ranks.pairs) + len(ranks.missing)} pairs", markup=False)
    stdout.print()
    overall = _table("Overall", "mean score, lower is better")
    overall.add_column("rank", justify="right")
    overall.add_column("entry", overflow="fold")
    overall.add_column("score", justify="right")
    for place, each in enumerate(ranks.overall):
        if place < _TOP or each.own:
            overall.add_row(f"{each.rank:g}", each.name, f"{each.score:.4f}", style="bold" if each.own else "")
    stdout.print(overall, soft_wrap=False)


def _table(title: str, caption: str) -> Table:
    return Table(
        title=title,
        caption=caption,
        title_justify="left",
        caption_justify="left",
        title_style="bold",
        box=None,
        pad_edge=False,
        header_style="dim",
    )
