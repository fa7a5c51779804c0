"""What fine-tuning reads: TFs, cell types and regions, as they were chosen."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ebert_core.data.dataset import Dataset
from ebert_core.errors import EbertError, UnknownNameError
from ebert_core.genome.labels import BOUND, UNBOUND
from ebert_core.genome.regions import Region
from ebert_core.io.motifs import Motif, choose_motifs
from ebert_core.training.finetune_data import FinetuneChoice, FinetuneData, choose_data


def chosen(dataset: Dataset, *tfs: str, **choice: object) -> FinetuneData:
    return choose_data(dataset, FinetuneChoice(tuple(tfs) or ("CTCF",), **choice))


def test_everything_by_default(toy_dataset: Dataset) -> None:
    data = chosen(toy_dataset)
    assert (data.tfs, data.cells, data.valid_cells) == (("CTCF",), ("GM12878", "HepG2"), ("GM12878", "HepG2"))
    assert {region.chrom for region in data.train} == {region.chrom for region in data.valid} == {"chr1", "chr2"}
    covered = sorted((*data.train, *data.valid), key=lambda region: (region.chrom, region.start))
    # Together they cover the assayed chromosomes once.
    for chrom, length in (("chr1", 60_000), ("chr2", 41_337)):
        edges = [(region.start, region.end) for region in covered if region.chrom == chrom]
        assert (edges[0][0], edges[-1][1]) == (0, length)
        assert all(a[1] == b[0] for a, b in itertools.pairwise(edges))


@pytest.mark.parametrize(
    ("tfs", "expected"),
    [(("all",), ("CTCF", "MAX")), (("ALL",), ("CTCF", "MAX")), (("max", "ctcf", "MAX"), ("MAX", "CTCF"))],
)
def test_tfs_by_any_spelling_once_in_the_order_asked(
    toy_dataset: Dataset, tfs: tuple[str, ...], expected: tuple[str, ...]
) -> None:
    assert chosen(toy_dataset, *tfs).tfs == expected


def test_cells_by_any_spelling(toy_dataset: Dataset) -> None:
    assert chosen(toy_dataset, cells=("E116", "gm-12878")).cells == ("GM12878",)
    data = chosen(toy_dataset, valid_cells=("hepg2",))
    assert (data.cells, data.valid_cells) == (("GM12878",), ("HepG2",))
    data = chosen(toy_dataset, held_out_cells=("HEPG2", "MyCell"))
    assert (data.cells, data.valid_cells, data.held_out_cells) == (("GM12878",), ("GM12878",), ("HepG2", "MyCell"))


def test_one_chromosome_trains_another_validates(toy_dataset: Dataset) -> None:
    data = chosen(toy_dataset, chroms=("1",), valid=(Region("chr2", 0, 41_337),))
    assert data.train == (Region("chr1", 0, 60_000),)
    assert data.valid == (Region("chr2", 0, 41_337),)


def test_valid_and_held_out_regions_leave_the_training_part(toy_dataset: Dataset) -> None:
    data = chosen(
        toy_dataset, valid=(Region("chr1", 5_050, 15_010),), held_out=(Region("chr2", 0, 20_000),), chroms=("chr1", "2")
    )
    assert data.train == (Region("chr1", 0, 5_050), Region("chr1", 15_010, 60_000), Region("chr2", 20_000, 41_337))


FAULTS = {
    "unknown TF": ({"tfs": ("CTFC",)}, "unknown TF 'CTFC'", "did you mean CTCF"),
    "no TF": ({"tfs": ()}, "no TF", "CTCF, MAX"),
    "unknown cell": ({"cells": ("HepG3",)}, "unknown cell type", "HepG2"),
    "unknown validation cell": ({"valid_cells": ("GM12877",)}, "unknown cell type", "GM12878"),
    "unknown held-out cell": ({"held_out_cells": ("Hep2",)}, "unknown cell type", "HepG2"),
    "cell without labels": ({"cells": ("MyCell",)}, "CTCF labels", "GM12878"),
    "validation cell without labels": ({"valid_cells": ("MyCell",)}, "CTCF labels", "HepG2"),
    "no cell left": ({"held_out_cells": ("HepG2", "GM12878")}, "no cell type is left", "GM12878, HepG2"),
    "held out and valid": ({"held_out_cells": ("HepG2",), "valid_cells": ("hepg2",)}, "HepG2", "--valid-cell"),
    "held out and trained": ({"held_out_cells": ("HepG2",), "cells": ("hepg2", "E116")}, "HepG2", "--hold-out-cell"),
    "unknown chromosome": ({"chroms": ("chr3",)}, "unknown chromosome 'chr3'", "chr1"),
    "nothing left": (
        {"held_out": (Region("chr1", 0, 60_000), Region("chr2", 0, 41_337))}, "left to train", "--chrom",
    ),
    "validation held out": (
        {"valid": (Region("chr1", 0, 5_000),), "held_out": (Region("chr1", 4_999, 9_000),)}, "also held out", "",
    ),
    "no bound bin to train on": ({"chroms": ("chr1",), "valid": (Region("chr1", 600, 60_000),)}, "bound", "--chrom"),
    "no bound bin to validate on": ({"valid": (Region("chr1", 0, 600),)}, "no bound bin", "--valid-chrom"),
    "chromosome that nobody assayed": ({"chroms": ("chrShort",)}, "no bound bin in the train", "--chrom"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_impossible_choices_are_refused(toy_dataset: Dataset, fault: str) -> None:
    choice, message, hint = FAULTS[fault]
    with pytest.raises(EbertError) as caught:
        choose_data(toy_dataset, FinetuneChoice(**{"tfs": ("CTCF",), **choice}))
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_unknown_names_are_of_their_own_kind(toy_dataset: Dataset) -> None:
    with pytest.raises(UnknownNameError):
        chosen(toy_dataset, "CTFC")


def test_a_validation_part_without_unbound_bins_is_refused(toy_dataset: Dataset) -> None:
    """It would be found out only when training is over: there is nothing to calibrate on."""
    labels = toy_dataset.labels("CTCF", "HepG2", "chr1")
    start = int(np.flatnonzero(labels == BOUND)[0]) * 50
    with pytest.raises(EbertError, match="no unbound bin in the validation part"):
        chosen(toy_dataset, cells=("HepG2",), valid=(Region("chr1", start, start + 200),))


def test_a_dataset_without_labels_is_refused(copied_dataset: Callable[[], Dataset]) -> None:
    dataset = copied_dataset()
    dataset.manifest["labels"] = {}
    with pytest.raises(EbertError, match="holds no labels") as caught:
        chosen(dataset)
    assert "ebert prepare --chip" in caught.value.hint


def test_a_tf_that_one_cell_lacks(copied_dataset: Callable[[], Dataset], relabel: Callable[..., Dataset]) -> None:
    dataset = relabel(copied_dataset(), lambda tf, cell, codes: None if (tf, cell) == ("MAX", "HepG2") else codes)
    assert chosen(dataset, "CTCF", "MAX").cells == ("GM12878", "HepG2")
    with pytest.raises(EbertError, match="MAX has no bound bin in the train"):
        chosen(dataset, "CTCF", "MAX", cells=("HepG2",))


# --- learned beside


@pytest.mark.parametrize(
    ("tfs", "also", "expected"),
    [
        (("CTCF",), (), ()),
        (("CTCF",), ("max", "MAX", "ctcf"), ("MAX",)),
        (("CTCF",), ("ALL",), ("MAX",)),
        (("all",), ("all",), ()),
    ],
)
def test_what_is_learned_beside(
    toy_dataset: Dataset, tfs: tuple[str, ...], also: tuple[str, ...], expected: tuple[str, ...]
) -> None:
    """By any spelling, once, and not what is asked for anyway."""
    data = chosen(toy_dataset, *tfs, also=also)
    assert data.also == expected
    assert data.outputs == (*data.tfs, *expected)


def test_all_beside_leaves_out_what_the_training_part_does_not_show(
    copied_dataset: Callable[[], Dataset], relabel: Callable[..., Dataset]
) -> None:
    """Named by itself, that is an error: nothing could be learned of it."""

    def unbound(tf: str, cell: str, codes: np.ndarray) -> np.ndarray:
        codes = codes.copy()
        if (tf, cell) == ("MAX", "GM12878"):
            codes[codes == BOUND] = UNBOUND
        return codes

    dataset = relabel(copied_dataset(), unbound)
    assert chosen(dataset, also=("all",)).also == ("MAX",)
    held_out = {"held_out_cells": ("HepG2",)}
    assert chosen(dataset, also=("all",), **held_out).also == ()
    with pytest.raises(EbertError, match="MAX has no bound bin in the training part") as caught:
        chosen(dataset, also=("MAX",), **held_out)
    assert "leave this TF out" in caught.value.hint
    lacking = relabel(copied_dataset(), lambda tf, cell, codes: codes if (tf, cell) != ("MAX", "GM12878") else None)
    assert chosen(lacking, also=("all",), **held_out).also == ()
    with pytest.raises(EbertError, match="MAX has no bound bin in the training part"):
        chosen(lacking, also=("MAX",), **held_out)


def test_an_unknown_tf_beside_suggests(toy_dataset: Dataset) -> None:
    with pytest.raises(UnknownNameError, match="unknown TF 'MAXX'") as caught:
        chosen(toy_dataset, also=("MAXX",))
    assert "MAX" in caught.value.hint


def test_motifs_of_the_tfs_once_in_their_order(toy_motifs: list[Motif]) -> None:
    motifs, missing = choose_motifs(toy_motifs, ["sp1", "REST", "MAX"], ["MA0001.7", "rest", "SP1"])
    assert [motif.alt_name for motif in motifs] == ["SP1", "MAX"]
    assert missing == ["REST", "rest"]
    assert choose_motifs(toy_motifs, []) == ([], [])


def test_of_a_tf_every_matrix_is_read_and_of_a_common_one_the_widest() -> None:
    widths = {"MA0058.3": 5, "MA0139.1": 7}
    names = ["MA0139.1", "MA1929.1", "MA0139.2", "MA0058.3", "MA0059.1", "MA0058.4"]
    alternative = ["CTCF", "CTCF", "CTCF", "MAX", "MAX::MYC", "MAX"]
    file = [
        Motif(name, alt, np.full((widths.get(name, 3), 4), 0.25, np.float32))
        for name, alt in zip(names, alternative, strict=True)
    ]
    assert [motif.name for motif in choose_motifs(file, ["CTCF"], ["MAX"])[0]] == [*names[:3], "MA0058.3"]
    assert [motif.name for motif in choose_motifs(file, ["max"], ["CTCF"])[0]] == ["MA0058.3", "MA0058.4", "MA0139.1"]
    assert [motif.name for motif in choose_motifs(file, ["MYC"], ["MAX", "MYC"])[0]] == ["MA0059.1", "MA0058.3"]


# --- what is recorded


def test_the_description_names_what_was_read(toy_dataset: Dataset, copied_dataset: Callable[[], Dataset]) -> None:
    """A resumed run compares it, so it must change with each array that training reads."""
    plain = chosen(toy_dataset).describe()
    assert json.loads(json.dumps(plain)) == plain
    assert chosen(copied_dataset()).describe() == plain
    assert plain["also"] == []
    beside = chosen(toy_dataset, also=("MAX",)).describe()
    assert (beside["also"], set(beside["dataset_labels"])) == (["MAX"], {"CTCF", "MAX"})
    for file in (
        "sequence.npy", "excluded.npy", "states/HepG2.npy", "labels/CTCF/HepG2.npy", "accessibility/HepG2.npy",
    ):  # fmt: skip
        dataset = copied_dataset()
        for entry in _entries(dataset, file):
            entry["sha256"] = "0" * 64
        assert chosen(dataset).describe() != plain, file


def _entries(dataset: Dataset, file: str) -> list[dict]:
    manifest, folder = dataset.manifest, Path(file).parts[0]
    if folder in ("states", "accessibility"):
        return [manifest[folder]["HepG2"]]
    if folder == "labels":
        return [manifest["labels"]["CTCF"]["HepG2"]]
    return [manifest["sequence" if folder.startswith("sequence") else "excluded"]]


def test_the_description_names_transcript_starts(toy_with_starts: Dataset) -> None:
    entry = toy_with_starts.manifest["tss"]
    assert chosen(toy_with_starts).describe()["dataset_features"]["tss"] == entry["sha256"]
