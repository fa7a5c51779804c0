"""What the runs of the development benchmark add up to: a table of auPRC, and paired differences between designs.

Letters: R resamples of 1-Mb blocks, the same for all runs on a chromosome.
"""

from __future__ import annotations

import statistics
import warnings
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95


class Run(NamedTuple):
    """One finished run: auPRC and its resamples (R,) by TF."""

    design: str
    turn: str
    seed: int
    auprc: dict[str, float]
    resampled: dict[str, NDArray[np.float64]]


def mean_over_tfs(runs: list[Run], design: str, seeds: set[int] | None = None) -> dict[str, float]:
    """TF -> mean auPRC over turns and seeds."""
    own = [run for run in runs if run.design == design and (seeds is None or run.seed in seeds)]
    tfs = dict.fromkeys(tf for run in own for tf in run.auprc)
    return {tf: statistics.mean(run.auprc[tf] for run in own if tf in run.auprc) for tf in tfs}


def design_means(runs: list[Run]) -> dict[str, dict[str, float]]:
    """Design -> mean over TFs of their mean auPRC, and its spread over seeds: largest minus smallest."""
    found = {}
    for design in dict.fromkeys(run.design for run in runs):
        seeds = {run.seed for run in runs if run.design == design}
        by_seed = [statistics.mean(mean_over_tfs(runs, design, {seed}).values()) for seed in seeds]
        mean = statistics.mean(mean_over_tfs(runs, design).values())
        found[design] = {"mean": round(mean, 4), "spread": round(max(by_seed) - min(by_seed), 4)}
    return found


def _by_pair(runs: list[Run], design: str) -> dict[tuple[str, str], tuple[float, NDArray[np.float64]]]:
    """(TF, turn) -> (auPRC, resamples (R,)), means over seeds."""
    found: dict[tuple[str, str], list[tuple[float, NDArray[np.float64]]]] = {}
    for run in runs:
        if run.design == design:
            for tf, auprc in run.auprc.items():
                found.setdefault((tf, run.turn), []).append((auprc, run.resampled[tf]))
    return {
        pair: (statistics.mean(a for a, _ in each), np.mean([b for _, b in each], axis=0))
        for pair, each in found.items()
    }


def compare(runs: list[Run], first: str, second: str) -> dict[str, Any] | None:
    """First minus second in mean auPRC over TFs (each the mean over its turns), paired; None where one was not run.

    Only what both have is compared. Returns `difference`, `lower` and `upper` of the middle 95 %, `relative` to the
    second's mean, `tfs`, in how many of them the first is above (`wins`), and the difference per TF.
    """
    ours, theirs = _by_pair(runs, first), _by_pair(runs, second)
    both = [pair for pair in ours if pair in theirs]
    if not both:
        return None
    tfs = list(dict.fromkeys(tf for tf, _ in both))
    points, changes, bases = {}, [], []
    for tf in tfs:
        pairs = [pair for pair in both if pair[0] == tf]
        points[tf] = statistics.mean(ours[pair][0] - theirs[pair][0] for pair in pairs)
        bases.append(statistics.mean(theirs[pair][0] for pair in pairs))
        changes.append(_mean_known([ours[pair][1] - theirs[pair][1] for pair in pairs]))
    drawn = _mean_known(changes)
    lower, upper = np.nanquantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    difference = statistics.mean(points.values())
    return {
        "difference": round(difference, 4),
        "lower": round(float(lower), 4),
        "upper": round(float(upper), 4),
        "relative": round(difference / statistics.mean(bases), 4),
        "tfs": len(tfs),
        "wins": sum(value > 0 for value in points.values()),
        "by_tf": {tf: round(value, 4) for tf, value in points.items()},
    }


def _mean_known(resamples: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Mean of several (R,), leaving out those without a figure in a resample."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a resample in which none has a figure stays NaN
        return np.nanmean(resamples, axis=0)


def as_text(runs: list[Run], tfs: tuple[str, ...]) -> str:
    """Rows TFs, columns designs: mean auPRC over turns and seeds."""
    designs = list(dict.fromkeys(run.design for run in runs))
    means = {design: mean_over_tfs(runs, design) for design in designs}
    width = max(len(tf) for tf in (*tfs, "spread over seeds"))
    lines = [" " * width + "".join(f"  {design}" for design in designs)]
    for tf in tfs:
        if any(tf in mean for mean in means.values()):
            lines.append(_line(tf, width, {design: means[design].get(tf) for design in designs}))
    overall = design_means(runs)
    lines.append(_line("mean", width, {design: overall[design]["mean"] for design in designs}))
    lines.append(_line("spread over seeds", width, {design: overall[design]["spread"] for design in designs}))
    return "\n".join(lines)


def _line(name: str, width: int, values: dict[str, float | None]) -> str:
    cells = [f"  {'-' if value is None else f'{value:.3f}':>{len(design)}}" for design, value in values.items()]
    return f"{name:<{width}}" + "".join(cells)
