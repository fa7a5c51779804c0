"""What a user is told: sentences, places and suggestions."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebert_core.errors import EbertError, InputError, OutputExistsError, UnknownNameError, listing, suggestion

CELLS = ["GM12878", "HeLa-S3", "HepG2", "K562"]


def test_an_input_error_names_its_place():
    assert InputError(Path("a.bed"), "is empty").message == "a.bed: is empty"
    error = InputError("a.bed", "is odd", "mend it", line=1_234_567)
    assert error.message == str(error) == "a.bed, line 1,234,567: is odd"
    assert (error.path, error.line, error.hint) == ("a.bed", 1_234_567, "mend it")
    assert isinstance(error, EbertError)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("hepg2", "did you mean HepG2?"),
        ("HELAS3", "did you mean HeLa-S3?"),
        ("K526", "did you mean K562?"),
        ("zebrafish", "known: GM12878, HeLa-S3, HepG2, K562"),
    ],
)
def test_an_unknown_name_gets_the_nearest_or_all(name, hint):
    error = UnknownNameError("cell type", name, [*CELLS[::-1], "K562"])
    assert error.message == f"unknown cell type {name!r}"
    assert error.hint == hint


def test_nothing_known():
    assert UnknownNameError("TF", "CTCF", []).hint == "none is known yet"


@given(st.text(max_size=8), st.lists(st.text(max_size=8), max_size=8))
def test_suggestions_are_known_names(name, known):
    text = suggestion(name, known)
    assert text == "" or any(candidate in text for candidate in known)


def test_a_name_one_letter_off_is_always_suggested():
    for cell in CELLS:
        for at in range(len(cell)):
            assert cell in suggestion(cell[:at] + "_" + cell[at + 1 :], CELLS)


def test_a_long_list_is_cut():
    names = [f"c{i:02}" for i in range(30)]
    assert listing(names) == f"known: {', '.join(names[:12])} and 18 more"
    assert listing(names[:12]) == f"known: {', '.join(names[:12])}"


def test_an_existing_output_names_the_ways_on():
    error = OutputExistsError(Path("models/CTCF"))
    assert error.message == "models/CTCF already exists"
    assert "--overwrite" in error.hint
    assert "--output" in error.hint
