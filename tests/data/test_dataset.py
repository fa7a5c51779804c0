"""An opened dataset: what may be asked of it, and what a damaged or foreign one says."""

from __future__ import annotations

import json
import multiprocessing
import shutil

import numpy as np
import pytest

from ebert_core.artifacts import MANIFEST_NAME
from ebert_core.config import PrepareConfig
from ebert_core.data.dataset import Dataset
from ebert_core.data.prepare import prepare
from ebert_core.errors import EbertError, InputError, UnknownNameError


@pytest.fixture
def copy(toy_dataset, tmp_path):
    """A dataset folder that may be broken."""
    return shutil.copytree(toy_dataset.path, tmp_path / "dataset")


def edit(folder, **changes):
    path = folder / MANIFEST_NAME
    manifest = json.loads(path.read_text())
    for key, value in changes.items():
        if value is None:
            del manifest[key]
        else:
            manifest[key] = value
    path.write_text(json.dumps(manifest))


def read_everything(folder):
    dataset = Dataset.open(folder)
    dataset.flat_sequence.sum()
    dataset.excluded("chr1")
    for cell in dataset.state_cells:
        dataset.states(cell, "chr1")
    for cell in dataset.accessibility_cells:
        dataset.accessibility(cell, "chr1")
    for tf, cell in dataset.label_pairs:
        dataset.labels(tf, cell, "chr1")


def test_what_there_is(toy_dataset):
    assert toy_dataset.cells == ("GM12878", "HepG2", "MyCell")
    assert toy_dataset.state_cells == ("GM12878", "HepG2", "MyCell")
    assert toy_dataset.accessibility_cells == ("GM12878", "HepG2")
    assert toy_dataset.tfs == ("CTCF", "MAX")
    assert toy_dataset.cells_of("max") == ("GM12878", "HepG2")
    assert toy_dataset.label_pairs == (
        ("CTCF", "GM12878"), ("CTCF", "HepG2"), ("MAX", "GM12878"), ("MAX", "HepG2"),
    )  # fmt: skip
    assert toy_dataset.require_state_model().name == "roadmap18"
    assert toy_dataset.assayed_chroms("CTCF", "HepG2") == ("chr1", "chr2")


@pytest.mark.parametrize("chrom", ["chr1", "chr2", "chrShort"])
def test_shapes_and_dtypes(toy_dataset, chrom):
    length = toy_dataset.assembly.length(chrom)
    assert toy_dataset.sequence(chrom).shape == (length,)
    assert toy_dataset.states("HepG2", chrom).shape == (-(-length // 200),)
    assert toy_dataset.accessibility("HepG2", chrom).shape == (-(-length // 50),)
    assert toy_dataset.accessibility("HepG2", chrom).dtype == np.float16
    assert toy_dataset.labels("CTCF", "HepG2", chrom).shape == (4 * -(-length // 200),)
    for array in (toy_dataset.sequence(chrom), toy_dataset.states("HepG2", chrom)):
        assert array.dtype == np.uint8


def test_arrays_are_read_only(toy_dataset):
    for array in (
        toy_dataset.sequence("chr1"),
        toy_dataset.states("HepG2", "chr1"),
        toy_dataset.accessibility("HepG2", "chr1"),
    ):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


def test_names_resolve(toy_dataset):
    assert toy_dataset.resolve_cell("E116") == toy_dataset.resolve_cell("gm-12878") == "GM12878"
    assert toy_dataset.resolve_tf("ctcf") == "CTCF"


@pytest.mark.parametrize(
    ("ask", "message", "hint"),
    [
        (lambda ds: ds.resolve_cell("HepG3"), "unknown cell type 'HepG3'", "did you mean HepG2?"),
        (lambda ds: ds.resolve_cell("K562"), "unknown cell type 'K562'", "known: GM12878, HepG2, MyCell"),
        (lambda ds: ds.resolve_tf("CTFC"), "unknown TF 'CTFC'", "did you mean CTCF?"),
        (lambda ds: ds.states("K562", "chr1"), "unknown cell type with states 'K562'", "known"),
        (lambda ds: ds.accessibility("MyCell", "chr1"), "unknown cell type with accessibility 'MyCell'", "known"),
        (lambda ds: ds.labels("CTCF", "MyCell", "chr1"), "unknown cell type with CTCF labels 'MyCell'", "known"),
        (lambda ds: ds.sequence("chr3"), "unknown chromosome 'chr3'", "chr1"),
        (lambda ds: ds.excluded("chr3"), "unknown chromosome 'chr3'", "chr1"),
    ],
)
def test_unknown_names(toy_dataset, ask, message, hint):
    with pytest.raises(UnknownNameError) as caught:
        ask(toy_dataset)
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_a_dataset_without_states(toy_files, tmp_path):
    dataset = prepare(PrepareConfig(output=tmp_path / "dataset", genome=toy_files.genome)).dataset
    assert dataset.cells == dataset.tfs == dataset.label_pairs == ()
    assert [array.tolist() for array in dataset.excluded("chr1")] == [[], []]
    with pytest.raises(EbertError, match="holds no chromatin states") as caught:
        dataset.require_state_model()
    assert "--states" in caught.value.hint
    with pytest.raises(UnknownNameError) as unknown:
        dataset.resolve_cell("K562")
    assert unknown.value.hint == "none is known yet"


ARRAYS = ["sequence.npy", "excluded.npy", "states/GM12878.npy", "accessibility/HepG2.npy", "labels/CTCF/HepG2.npy"]


@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.parametrize("damage", ["byte", "shorter", "longer", "missing"])
def test_a_damaged_array_is_refused_by_name(copy, name, damage):
    path = copy / name
    content = bytearray(path.read_bytes())
    if damage == "byte":
        content[-1] ^= 1
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(content[:-1] if damage == "shorter" else content + b"x" * (damage == "longer"))
    problem = {"byte": "does not match the digest", "missing": "is missing"}.get(damage, "bytes, the manifest says")
    with pytest.raises(InputError, match=problem) as caught:
        read_everything(copy)
    assert str(path) in caught.value.message
    assert "`ebert prepare`" in caught.value.hint


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"format_version": 99}, "has format version 99, this program reads version 1"),
        ({"format_version": None}, "has format version None"),
        ({"kind": "model"}, "holds a model, expected a dataset"),
        ({"kind": None}, "is not an ebert manifest"),
        ({"assembly": None}, "has no 'assembly'"),
        ({"labels": None}, "has no 'labels'"),
    ],
)
def test_a_foreign_manifest_is_refused(copy, changes, problem):
    edit(copy, **changes)
    with pytest.raises(InputError, match=problem) as caught:
        Dataset.open(copy)
    assert str(copy / MANIFEST_NAME) in caught.value.message
    assert "`ebert prepare`" in caught.value.hint


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("labels",), []),
        (("labels", "CTCF"), 3),
        (("labels", "CTCF", "HepG2", "sources"), None),
        (("labels", "CTCF", "HepG2", "chroms"), 5),
        (("states", "GM12878", "file"), 1),
        (("accessibility", "HepG2", "sha256"), None),
        (("assembly", "chroms"), "chr1"),
        (("assembly", "chroms"), [["chr1"]]),
        (("excluded",), None),
        (("regions",), "all"),
        (("aliases",), []),
        (("state_model", "states"), 18),
    ],
)
def test_a_manifest_edited_by_hand_is_told(copy, place, value):
    manifest = json.loads((copy / MANIFEST_NAME).read_text())
    inner = manifest
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    (copy / MANIFEST_NAME).write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="is damaged") as caught:
        Dataset.open(copy)
    assert str(copy / MANIFEST_NAME) in caught.value.message
    assert "`ebert prepare`" in caught.value.hint


@pytest.mark.parametrize(
    ("content", "problem"), [(b"", "is not valid JSON"), (b"[]", "is not an ebert"), (b"\xff\xfe", "is not text")]
)
def test_a_manifest_that_is_none(copy, content, problem):
    (copy / MANIFEST_NAME).write_bytes(content)
    with pytest.raises(InputError, match=problem):
        Dataset.open(copy)


def test_no_dataset_there(tmp_path, copy):
    with pytest.raises(EbertError, match="is not there") as caught:
        Dataset.open(tmp_path / "missing")
    assert "`ebert prepare`" in caught.value.hint
    (copy / MANIFEST_NAME).unlink()
    with pytest.raises(EbertError, match="so it is no finished dataset"):
        Dataset.open(copy)


def _sum_in_child(folder):
    return int(Dataset.open(folder).flat_sequence.sum())


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_many_processes_read_the_same(toy_dataset):
    with multiprocessing.get_context("fork").Pool(3) as pool:
        sums = pool.map(_sum_in_child, [toy_dataset.path] * 6, chunksize=1)
    assert set(sums) == {int(toy_dataset.flat_sequence.sum())}
