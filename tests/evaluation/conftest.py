"""A fabricated evaluation with everything that a report can show."""

from __future__ import annotations

import numpy as np
import pytest

from ebert_core.epigenome.state_models import BUILT_IN
from ebert_core.evaluation import loci
from ebert_core.evaluation.baselines import Unavailable
from ebert_core.evaluation.held_out import HeldOut
from ebert_core.evaluation.measures import (
    are_probabilities,
    measure,
    measures_at,
    precision_recall_curve,
    reliability,
    roc_curve,
    thresholds,
)
from ebert_core.evaluation.results import (
    BootstrapSettings,
    ChallengeRanks,
    Difference,
    Evaluation,
    Interval,
    Locus,
    OverallRank,
    PairRank,
    Row,
    StateBins,
)
from ebert_core.genome.assembly import Assembly
from ebert_core.genome.labels import AMBIGUOUS, BOUND, UNBOUND

CHROM, LENGTH = "chr22", 300_000
LONG_NAME = "an_ensemble_of_seven_models_with_a_long_name.v12.GM12878.bw"
ROADMAP18 = BUILT_IN["roadmap18"].states


def _world(rng):
    """Starts, labels, a latent score per bin and a state per 200 bp of one chromosome with 40 peaks."""
    starts = np.arange(600, LENGTH - 800, 50)
    labels, latent = np.full(len(starts), UNBOUND, np.uint8), rng.gamma(0.25, 0.1, len(starts))
    for peak in rng.integers(5_000, LENGTH - 5_000, 40):
        overlap = np.minimum(peak + 150, starts + 200) - np.maximum(peak - 150, starts)
        labels[overlap > 0] = AMBIGUOUS
        labels[overlap >= 100] = BOUND
        latent += rng.beta(3, 1) * np.exp(-(((starts + 100 - peak) / 130) ** 2))
    states = np.repeat(rng.integers(0, 19, LENGTH // 1_000), 5).astype(np.uint8)
    return starts, labels, np.clip(latent, 0, 1), states


def _row(name, kind, scores, bound, codes, first):
    counts = thresholds(scores, bound)
    measures = measures_at(counts)
    file = kind != "baseline"
    here = {code: codes == code for code in np.unique(codes).tolist()}
    return Row(
        name=name,
        kind=kind,
        measures=measures,
        by_chrom={CHROM: measures},
        note="" if first else f"what {name} is",
        pr_curve=precision_recall_curve(counts),
        roc_curve=roc_curve(counts),
        held_out=HeldOut("seen", f"seen: trained on {CHROM}", False, {CHROM: 7}) if file else None,
        reliability=reliability(scores, bound) if file and are_probabilities(scores) else None,
        provenance={"path": f"predictions/{name}", "format": "bigWig", "sha256": "ab" * 32} if file else {},
        intervals={
            key: Interval(max(0, value - 0.021), min(1, value + 0.019))
            for key, value in list(measures.as_dict().items())[3:]
        },
        by_state={
            code: measure(scores[at], bound[at]) if bound[at].any() and not bound[at].all() else None
            for code, at in here.items()
        },
        subsamples=np.arange(40.0).reshape(10, 4) / 40 if file else None,
    )


def _differences(rows):
    found = []
    for row in rows[1:]:
        for key in row.intervals:
            value = rows[0].measures.as_dict()[key] - row.measures.as_dict()[key]
            found.append(Difference(rows[0].name, row.name, key, value, Interval(value - 0.05, value + 0.04), 0.987))
    return tuple(found)


@pytest.fixture(scope="session")
def full_evaluation():
    """Two files, one of them on another scale and with a long name, three baselines, 18 states and unknown, 9 loci."""
    rng = np.random.default_rng(7)
    starts, labels, latent, states = _world(rng)
    clear = labels != AMBIGUOUS
    bound, codes = labels[clear] == BOUND, states[(starts[clear] + 100) // 200]
    scores = {}
    for name, noise, scale, shift in (
        ("mine.bw", 0.1, 1, 0), (LONG_NAME, 0.4, 9, -4),
        ("prevalence", 0, 0, bound.mean()), ("accessibility", 0.6, 5, 0), ("state frequency", 0.9, 0.03, 0),
    ):  # fmt: skip
        mixed = latent * (1 - noise) + noise * rng.beta(0.3, 2.5, len(latent))
        scores[name] = (mixed * scale + shift).astype(np.float32)
    kinds = ["prediction", "comparison", "baseline", "baseline", "baseline"]
    rows = [
        _row(name, kind, scores[name][clear], bound, codes, name == "mine.bw")
        for name, kind in zip(scores, kinds, strict=True)
    ]
    assembly = Assembly.from_sizes([(CHROM, LENGTH)])
    shown = [
        Locus(
            **vars(choice),
            states=loci.cut_states(states, choice.start, choice.end),
            labels=loci.cut_labels(starts, labels, choice.start, choice.end),
            tracks={
                name: loci.cut_track(starts[clear], scores[name][clear], choice.start, choice.end) for name in scores
            },
        )
        for choice in loci.choose_loci({CHROM: starts[clear]}, bound, scores["mine.bw"][clear], assembly)
    ]
    alphabet = [("unknown", "#b0b0b0"), *((state.label, state.color) for state in ROADMAP18)]
    return Evaluation(
        tf="CTCF",
        cell="induced_pluripotent_stem_cell",
        chroms=(CHROM,),
        assembly={"name": "hg19", "digest": "cd" * 32},
        counts={CHROM: {"bound": int(bound.sum()), "unbound": int((~bound).sum()), "ambiguous": int((~clear).sum())}},
        rows=tuple(rows),
        unavailable=(Unavailable("best motif hit", "no motif file"),),
        truth="peaks p.narrowPeak.gz",
        placement=("centre", "the mean"),
        missing=("error", "a bin without a score is an error"),
        notes=("a note",),
        provenance={"truth": {"p.narrowPeak.gz": {"bytes": 1, "sha256": "ef" * 32}}, "dataset": "d", "motifs": None},
        bootstrap=BootstrapSettings(1000, 1_000_000, 249, 3, 0.95),
        differences=_differences(rows),
        states=tuple(
            StateBins(
                code, *alphabet[code], int((bound & (codes == code)).sum()), int((~bound & (codes == code)).sum())
            )
            for code in np.unique(codes).tolist()
        ),
        loci=tuple(shown),
    )


@pytest.fixture(scope="session")
def final_ranks():
    """An entry in three pairs, 20th of 43."""
    cells = {"CTCF": "induced_pluripotent_stem_cell", "MAX": "liver", "E2F1": "K562"}
    overall = [OverallRank(f"team {number}", 0.1 + number / 100, float(number), False) for number in range(1, 44)]
    overall[19] = OverallRank("predictions", 0.3, 20.0, True)
    return ChallengeRanks(
        name="predictions",
        pairs=tuple(
            PairRank(tf, cell, rank, 41, f"team of {tf}", 0.41, 0.62)
            for (tf, cell), rank in zip(cells.items(), (3.0, 1.0, 7.5), strict=True)
        ),
        missing=(("NANOG", "induced_pluripotent_stem_cell"), ("TAF1", "liver")),
        overall=tuple(overall),
        wins=1,
        source="published score tables",
    )
