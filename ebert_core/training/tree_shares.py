"""How much of a say the boosted trees have in each TF's log-odds, beside the network: what the validation part is for.

Most TFs are best off with half. One that binds by its motif wherever that is leaves the trees with more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ebert_core.evaluation.measures import measure
from ebert_core.model.fusion import mixed
from ebert_core.training.binding_validation import FEWEST_BOUND, PairLogits

# Never less than half: the validation part is mostly of cell types that are trained on, and the network knows those
# better than others, which costs it more elsewhere than it costs the trees (docs/lab-notes.md).
_SHARES: Final = np.linspace(0.5, 1, 6, dtype=np.float32)
# Neighbouring bins say much the same, so of a long validation part some are enough, if enough of them are bound.
_MOST_BINS: Final = 1_000_000
_ENOUGH_BOUND: Final = 2_000


def chosen_shares(tfs: Sequence[str], opinions: PairLogits) -> NDArray[np.float32]:
    """Share of the trees for each TF, float32 (T,): half or more, that of the best mean auPRC over cell types.

    Half where no cell type has enough bound bins to tell; the least where several are as good.

    Args:
        opinions: logits of the network and of the trees, (n, 2) of each pair.
    """
    return np.array(
        [_chosen([pair for (name, _), pair in opinions.items() if name == tf]) for tf in tfs], dtype=np.float32
    )


def _chosen(pairs: Sequence[tuple[NDArray[np.float32], NDArray[np.bool_]]]) -> float:
    total = np.zeros(len(_SHARES))
    for logits, bound in pairs:
        if bound.sum() < FEWEST_BOUND or bound.all():
            continue
        every = max(1, min(-(-len(bound) // _MOST_BINS), int(bound.sum()) // _ENOUGH_BOUND))
        network, trees, kept = *logits[::every].T, bound[::every]
        if kept.any() and not kept.all():
            total += [measure(network + share * (trees - network), kept).auprc for share in _SHARES]
    return float(_SHARES[total.argmax()])


def judged(tfs: Sequence[str], opinions: PairLogits, shares: NDArray[np.float32]) -> PairLogits:
    """Logits of the model with these shares, (n,) of each pair; the opinions are used up, so as not to hold both."""
    by_tf = {tf: np.asarray(share) for tf, share in zip(tfs, shares, strict=True)}
    found = {}
    for pair in list(opinions):
        logits, bound = opinions.pop(pair)
        found[pair] = mixed(logits[:, 0], logits[:, 1], by_tf[pair[0]]), bound
    return found
