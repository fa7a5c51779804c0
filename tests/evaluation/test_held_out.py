"""The leak guard's verdict: what a model was trained on, held against the evaluated bins."""

from __future__ import annotations

import numpy as np
import pytest

from ebert_core.evaluation.held_out import held_out

GM_CHR2 = {"tfs": ["CTCF"], "cells": ["GM12878"], "regions": [["chr2", 0, 9000]]}


@pytest.mark.parametrize(
    ("trained", "status", "words"),
    [
        (None, "unknown", "does not say"),
        ({"tfs": ["MAX"], "cells": ["K562"], "regions": [["chr1", 0, 9000]]}, "held out", "not trained on CTCF"),
        (GM_CHR2 | {"tfs": ["ctcf"]}, "held out", "neither the cell type nor the chromosomes"),
        (GM_CHR2 | {"regions": [["chr1", 0, 601]]}, "seen", "trained on 1 of 2 bins of chr1, in other cell types"),
        (GM_CHR2 | {"regions": [["chr1", 0, 600], ["chr1", 1250, 9000]]}, "seen", "trained on other parts of chr1"),
        (GM_CHR2 | {"regions": [["chr1", 1250, 9000]], "window_bp": 1}, "seen", "trained on 1 of 2 bins of chr1"),
        (GM_CHR2 | {"regions": [["chr1", 1250, 9000]], "window_bp": 451}, "seen", "trained on chr1, in other cell"),
        (GM_CHR2 | {"regions": [["1", 0, 601]]}, "seen", "trained on 1 of 2 bins of chr1, in other cell types"),
        (GM_CHR2 | {"cells": ["k-562"]}, "seen", "trained on K562, on other chromosomes"),
        (GM_CHR2 | {"cells": ["E123"]}, "seen", "trained on K562, on other chromosomes"),
        (GM_CHR2 | {"cells": ["K562"], "regions": [["chr1", 0, 9000]]}, "seen", "trained on K562, chr1"),
    ],
)
def test_held_out(trained, status, words):
    sidecar = None if trained is None else {"trained_on": trained}
    verdict = held_out(sidecar, ("CTCF", "K562"), {"chr1": np.array([600, 1050])})
    assert verdict.status == status
    assert verdict.text.startswith(status)
    assert words in verdict.text


@pytest.mark.parametrize(
    ("pretrained", "words"),
    [
        (None, ""),
        ({"cells": ["E003"], "regions": [["chr9", 0, 100]]}, ""),
        ({"cells": ["E003"], "regions": [["chr1", 0, 100]]}, "; pre-training read chr1, without labels"),
        ({"cells": ["E003"], "regions": [["1", 0, 100]]}, "; pre-training read chr1, without labels"),
        ({"cells": ["E123"], "regions": []}, "; pre-training read the states of K562, without labels"),
        ({"cells": ["k562"], "regions": []}, "; pre-training read the states of K562, without labels"),
    ],
)
def test_what_pre_training_read_is_said_and_is_no_leak(pretrained, words):
    sidecar = {"trained_on": GM_CHR2, "pretrained_on": pretrained}
    verdict = held_out(sidecar, ("CTCF", "K562"), {"chr1": np.array([600, 1050])})
    assert verdict.status == "held out"
    assert verdict.text == f"held out: neither the cell type nor the chromosomes were trained on{words}"
