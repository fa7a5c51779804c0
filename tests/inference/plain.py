"""The slow way to score what is made of windows: each whole, by itself, through the model's own forward pass."""

from __future__ import annotations

import numpy as np

from ebert_core.data.windows import Batch
from ebert_core.inference.rescore import Changes, Rescore
from ebert_core.inference.scan import Score


def plain_rescore(score: Score, at_once: int = 16) -> Rescore:
    """The same as `model_rescore`, of the function that the scan uses."""

    def rescore(changes: Changes) -> tuple[np.ndarray, np.ndarray]:
        windows, found = changes.windows, []
        tracks = None if windows.tracks is None else windows.tracks[changes.of]
        for bases, states in ((windows.bases[changes.of], windows.states[changes.of]), (changes.bases, changes.states)):
            logits = []
            for first in range(0, len(bases), at_once):
                some = slice(first, first + at_once)
                shown = score(Batch(bases[some], states[some], None if tracks is None else tracks[some]))
                logits.append(np.take_along_axis(shown, changes.bins[some, :, None], axis=1))
            found.append(np.concatenate(logits))
        return found[0], found[1]

    return rescore
