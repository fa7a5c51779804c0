"""Expression in a dataset: what was in the file is what is looked up."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from ebert_core.config import FeatureConfig, PrepareConfig
from ebert_core.data.dataset import Dataset
from ebert_core.data.prepare import prepare
from ebert_core.data.task_features import TrackReader, TrackSpec
from ebert_core.errors import EbertError, InputError, UnknownNameError

TABLE = "gene_id\tE116\tMyCell\nENSG00000102974.9\t11.5\t0\nENSG00000125952\t3\t7.25\nTBP\t1\t2\n"
NAMES = "id\tsymbol\nENSG00000999999\tMAX\nENSG00000102974\tCTCF\nENSG00000125952.3\tMAX\nENSG00000000001\tNONE\n"
RSEM = "gene_id\tlength\tTPM\nENSG1\t9\t{}\nENSG2\t9\t{}\n"


@pytest.fixture
def make(toy_files, tmp_path):
    """A function: files by name, options -> the dataset, made once and then extended."""

    def run(files=None, **options):
        for name, text in (files or {}).items():
            path = tmp_path / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        output = tmp_path / "dataset"
        genome = None if output.exists() else toy_files.genome
        paths = {key: value if key == "overwrite" else tmp_path / value for key, value in options.items()}
        prepare(PrepareConfig(output=output, genome=genome, **paths))
        return Dataset.open(output)

    return run


def test_looked_up_by_id(make):
    dataset = make({"t.tsv": TABLE}, expression="t.tsv")
    assert dataset.expression_cells == ("GM12878", "MyCell")
    for gene in ("ENSG00000102974", "ENSG00000102974.12", "ensg00000102974"):
        assert dataset.expression("GM12878", gene) == pytest.approx(math.log(12.5))
    assert dataset.expression("MyCell", "ENSG00000102974") == 0.0
    assert dataset.expression("MyCell", "tbp") == pytest.approx(math.log(3))
    assert dataset.expression("MyCell", "CTCF") is None
    assert dataset.expression("MyCell", "ENSG") is None
    assert dataset.expression("MyCell", "") is None
    with pytest.raises(UnknownNameError, match="unknown cell type with expression 'HepG2'"):
        dataset.expression("HepG2", "TBP")
    assert dataset.cells == (), "expression alone makes no cell type of the dataset"


def test_looked_up_by_symbol(make):
    make({"t.tsv": TABLE}, expression="t.tsv")
    dataset = make({"n.tsv": NAMES}, gene_names="n.tsv")
    assert dataset.expression("GM12878", "CTCF") == pytest.approx(math.log(12.5))
    assert dataset.expression("MyCell", "Max") == pytest.approx(math.log(8.25)), "the first id that the table has"
    assert dataset.expression("MyCell", "NONE") is None
    assert set(dataset.feature_digests(["MyCell"])) == {"accessibility", "expression", "gene_names"}
    assert set(dataset.feature_digests(["MyCell", "K562"])["expression"]) == {"MyCell"}


def test_replicates_of_one_sample_are_averaged(make):
    files = {
        "rna/gene_expression.HepG2.biorep1.tsv": RSEM.format(1, 3),
        "rna/gene_expression.HepG2.biorep2.tsv": "gene_id\tlength\tTPM\nENSG2\t9\t5\nENSG1\t9\t2\n",
        "rna/gene_expression.K562.biorep1.tsv": RSEM.format(0, 8),
    }
    dataset = make(files, expression="rna")
    assert dataset.expression_cells == ("HepG2", "K562")
    assert dataset.expression("HepG2", "ENSG1") == pytest.approx(math.log(2.5))
    assert dataset.expression("HepG2", "ENSG2") == pytest.approx(math.log(5))
    assert dataset.expression("K562", "ENSG2") == pytest.approx(math.log(9))
    assert len(dataset.manifest["expression"]["HepG2"]["sources"]) == 2


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ({"rna/a.tsv": TABLE, "rna/b.tsv": TABLE.replace("MyCell", "Other")}, "b.tsv: gives GM12878 a second time"),
        ({"rna/a.tsv": "gene_id\tE116\tGM12878\nTBP\t1\t2\n"}, "gives GM12878 a second time"),
        ({"rna/K562.biorep1.tsv": RSEM.format(1, 2), "rna/K562.biorep2.tsv": RSEM.replace("SG2", "SG3").format(1, 2)},
         "biorep2.tsv: and K562.biorep1.tsv do not name the same genes"),
    ],
)  # fmt: skip
def test_tables_that_clash(make, files, problem):
    with pytest.raises(InputError, match=problem) as caught:
        make(files, expression="rna")
    assert caught.value.hint


def test_an_empty_folder(make, tmp_path):
    (tmp_path / "rna").mkdir()
    with pytest.raises(EbertError, match="holds no expression table"):
        make(expression="rna")


def test_another_table_needs_overwrite(make):
    make({"t.tsv": TABLE}, expression="t.tsv")
    make({"t.tsv": TABLE}, expression="t.tsv")
    with pytest.raises(EbertError, match="already holds expression of GM12878"):
        make({"t.tsv": TABLE.replace("11.5", "12.5")}, expression="t.tsv")
    dataset = make(expression="t.tsv", overwrite=True)
    assert dataset.expression("GM12878", "ENSG00000102974") == pytest.approx(math.log(13.5))
    assert len(list((dataset.path / "expression").iterdir())) == 2


# --- as a task feature


def test_expression_of_genes_stands_beside_all_cell_types(make):
    dataset = make({"t.tsv": TABLE}, expression="t.tsv")
    config = FeatureConfig(expression=("TBP", "ENSG00000102974"), accessibility=False, tss=False, other_states=False)
    spec = TrackSpec.choose(dataset, config)
    assert spec.channels == ("expression of TBP", "expression of ENSG00000102974", "expression known")
    assert TrackSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec
    values = np.log1p([[1, 2], [11.5, 0]])
    levels = (values - values.mean(axis=1, keepdims=True)) / values.std(axis=1, keepdims=True)
    reader = TrackReader(dataset, spec)
    for column, cell in enumerate(("GM12878", "MyCell")):
        found = reader.read(cell, np.array([0, 400]), 400)
        assert found.shape == (2, 8, 3)
        np.testing.assert_allclose(found, np.broadcast_to([*levels[:, column], 1], (2, 8, 3)), rtol=1e-5)
    assert reader.lacks("MyCell") == []
    assert reader.lacks("K562") == ["expression of K562: none in the dataset; it is shown as unknown"]
    for nobody in ("K562", None):
        assert (reader.read(nobody, np.array([0]), 400) == 0).all()
    alone = TrackSpec.choose(dataset, config, held_out=("MyCell",))
    assert [level.mean for level in alone.genes] == pytest.approx([np.log(2), np.log(12.5)])
    assert (np.abs(TrackReader(dataset, alone).read("MyCell", np.array([0]), 200)) <= 3).all()


def test_genes_that_nobody_measured_are_an_error(make, toy_dataset):
    dataset = make({"t.tsv": TABLE}, expression="t.tsv")
    with pytest.raises(EbertError, match="no table of expression names SOX2") as caught:
        TrackSpec.choose(dataset, FeatureConfig(expression=("TBP", "SOX2")))
    assert "--gene-names" in caught.value.hint
    with pytest.raises(EbertError, match="holds no gene expression"):
        TrackSpec.choose(toy_dataset, FeatureConfig(expression=("TBP",)))
    with pytest.raises(EbertError, match=r"of other cell types \(GM12878, MyCell held out\)"):
        TrackSpec.choose(dataset, FeatureConfig(expression=("TBP",)), ("GM12878", "MyCell"))
