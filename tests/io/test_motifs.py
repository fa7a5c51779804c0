"""MEME files: what is read, what is refused, and which motif a TF's name means."""

from __future__ import annotations

import gzip

import numpy as np
import pytest

from ebert_core.errors import InputError, UnknownNameError
from ebert_core.io.motifs import Motif, find_motif, read_motifs

HEAD = (
    "MEME version 4\n\nALPHABET= ACGT\n\nstrands: + -\n\nBackground letter frequencies\nA 0.25 C 0.25 G 0.25 T 0.25\n\n"
)
TWO = (
    HEAD
    + "MOTIF MA0001.1 FIRST\nletter-probability matrix: alength= 4 w= 2 nsites= 20 E= 0\n 1 0 0 0\n"
    + " 0.1  0.2\t0.3 0.4\n\n"
    + "MOTIF second\n\nletter-probability matrix: alength=4 w=1\n0.25 0.25 0.25 0.25\nURL http://jaspar\n"
)


def save(tmp_path, text):
    path = tmp_path / "x.meme"
    path.write_text(text)
    return path


def test_reads_matrices_in_order(tmp_path):
    first, second = read_motifs(save(tmp_path, TWO))
    assert (first.name, first.alt_name, first.label) == ("MA0001.1", "FIRST", "FIRST (MA0001.1)")
    assert first.probabilities.dtype == np.float32
    np.testing.assert_allclose(first.probabilities, [[1, 0, 0, 0], [0.1, 0.2, 0.3, 0.4]])
    assert (second.name, second.alt_name, second.label, len(second)) == ("second", "", "second", 1)


def test_reads_gzip_crlf_and_a_matrix_without_width(tmp_path):
    path = tmp_path / "x.meme.gz"
    text = (
        HEAD + "MOTIF a\nletter-probability matrix:\n0 1 0 0\n0 0 1 0\n\nMOTIF b\nletter-probability matrix:\n0 0 0 1\n"
    )
    path.write_bytes(gzip.compress(text.replace("\n", "\r\n").encode()))
    assert [motif.probabilities.argmax(axis=1).tolist() for motif in read_motifs(path)] == [[1, 2], [3]]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "has no motif"),
        (">MA0001 X\nA [1 2]\n", "line 1: is not a MEME file"),
        (HEAD, "has no motif"),
        (HEAD.replace("ACGT", "ACGU"), "line 3: has the alphabet 'ACGU'"),
        (HEAD + "MOTIF\n", "line 10: has a motif without a name"),
        (HEAD + "MOTIF a\nMOTIF b\n", "line 10: motif a has no letter-probability matrix"),
        (HEAD + "MOTIF a\n", "ends within motif a"),
        (HEAD + "MOTIF a\nletter-probability matrix: w= 2\n1 0 0 0\n", "motif a has 1 rows, its header says 2"),
        (
            HEAD + "MOTIF a\nletter-probability matrix: w= 2\n1 0 0 0\nMOTIF b\n",
            "line 13: motif a: 'MOTIF b' is no row",
        ),
        (HEAD + "MOTIF a\nletter-probability matrix: w= 1\n1 0 0\n", "line 12: motif a: '1 0 0' is not four"),
        (HEAD + "MOTIF a\nletter-probability matrix: w= 1\n0.5 0.2 0 0\n", "add up to 1"),
        (HEAD + "MOTIF a\nletter-probability matrix: w= 1\n1.5 -0.5 0 0\n", "add up to 1"),
        (HEAD + "MOTIF a\nletter-probability matrix: w= 1\nnan 0 0 0\n", "add up to 1"),
    ],
)
def test_refusals(tmp_path, text, words):
    with pytest.raises(InputError, match=words):
        read_motifs(save(tmp_path, text))


def test_log_odds_in_bits():
    motif = Motif("m", "", np.array([[1, 0, 0, 0], [0.25, 0.25, 0.25, 0.25]], np.float32))
    odds = motif.log_odds()
    assert odds.shape == (2, 4)
    assert odds[0, 0] == pytest.approx(np.log2(0.9925 / 0.25))
    assert odds[0, 1] == pytest.approx(np.log2(0.01))
    np.testing.assert_allclose(odds[1], 0, atol=1e-6)
    skewed = motif.log_odds((0.4, 0.1, 0.1, 0.4))
    assert skewed[0, 0] == pytest.approx(np.log2((0.99 + 0.004) / 0.4))
    # Base by base, expected under the background, odds are 1: sum of background x 2^odds.
    np.testing.assert_allclose((np.exp2(skewed) * [0.4, 0.1, 0.1, 0.4]).sum(axis=1), 1, rtol=1e-6)


def collection(*names):
    return [Motif(name, alt, np.full((1, 4), 0.25, np.float32)) for name, alt in names]


JASPAR = collection(
    ("MA0139.1", "CTCF"), ("MA1930.1", "CTCF"), ("MA0139.10", "CTCF"), ("MA0139.2", "CTCF"), ("MA1930.2", "CTCF"),
    ("MA0059.1", "MAX::MYC"), ("MA0058.3", "MAX"), ("MA0099.3", "FOS::JUN"),
)  # fmt: skip
HOCOMOCO = collection(("GATA1_HUMAN.H11MO.0.A", ""), ("CTCF_HUMAN.H11MO.0.A", ""), ("SP1.H12CORE.0.P.B", ""))
PLAIN = collection(("a", "ONE"), ("b", "ONE"), ("THREE", "other"))


@pytest.mark.parametrize(
    ("motifs", "tf", "name"),
    [
        (JASPAR, "ctcf", "MA0139.10"),
        (JASPAR, "MAX", "MA0058.3"),
        (JASPAR, "Myc", "MA0059.1"),
        (JASPAR, "FOS::JUN", "MA0099.3"),
        (JASPAR, "MA1930.1", "MA1930.1"),
        (HOCOMOCO, "CTCF", "CTCF_HUMAN.H11MO.0.A"),
        (HOCOMOCO, "sp1", "SP1.H12CORE.0.P.B"),
        (PLAIN, "One", "b"),
        (PLAIN, "three", "THREE"),
    ],
)
def test_find_motif(motifs, tf, name):
    assert find_motif(motifs, tf).name == name


def test_find_motif_suggests():
    with pytest.raises(UnknownNameError, match="unknown motif 'CTCFX'") as caught:
        find_motif(JASPAR, "CTCFX")
    assert "CTCF" in caught.value.hint
