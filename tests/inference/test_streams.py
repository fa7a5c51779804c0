"""Rows for a pipe: what they say, and that they come as soon as they are known."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ebert_core.errors import EbertError, UnknownNameError
from ebert_core.inference.output_files import OutputSettings
from ebert_core.inference.streams import stream_format, write_rows

TFS = ("CTCF", "MAX")


def text_of(made: Any, name: str, **settings: Any) -> list[list[str]]:
    handle = io.StringIO()
    assert write_rows(made.pieces(), TFS, handle, name, OutputSettings(("bedgraph",), **settings)) == made.plan.coverage
    return [line.split("\t") for line in handle.getvalue().splitlines()]


def bins_of(made: Any) -> list[tuple[str, int, np.ndarray]]:
    return [
        (chrom, 50 * number, values)
        for chrom, table in made.tables.items()
        for number, values in enumerate(table)
        if not np.isnan(values[0])
    ]


@pytest.mark.parametrize("least", [None, 0.5])
def test_bed_names_the_tf_and_scores_the_bin(made_up: Callable[..., Any], least: float | None) -> None:
    made = made_up()
    rows = text_of(made, "bed", min_score=least)
    expected = [
        (chrom, start, tf, values[column])
        for chrom, start, values in bins_of(made)
        for column, tf in enumerate(TFS)
        if values[column] >= (least or 0)
    ]
    assert [(row[0], int(row[1]), row[3]) for row in rows] == [row[:3] for row in expected]
    assert all(int(row[2]) - int(row[1]) == 200 and len(row) == 5 for row in rows)
    np.testing.assert_allclose([float(row[4]) for row in rows], [row[3] for row in expected], rtol=1e-5)


@pytest.mark.parametrize("least", [None, 0.5])
def test_a_table_has_a_column_per_tf(made_up: Callable[..., Any], least: float | None) -> None:
    made = made_up()
    head, *rows = text_of(made, "tsv", min_score=least)
    assert head == ["chrom", "start", "end", *TFS]
    expected = [row for row in bins_of(made) if row[2].max() >= (least or 0)]
    assert [(row[0], int(row[1]), int(row[2])) for row in rows] == [(c, s, s + 200) for c, s, _ in expected]
    values = [[float(text) for text in row[3:]] for row in rows]
    np.testing.assert_allclose(values, [values for *_, values in expected], rtol=1e-5)


def test_a_bedgraph_has_the_central_50_bp(made_up: Callable[..., Any]) -> None:
    made = made_up()
    rows = text_of(made, "bedgraph", min_score=0.25, round_digits=2)
    expected = [row for row in bins_of(made) if row[2][0] >= 0.25]
    assert [(row[0], int(row[1]), int(row[2])) for row in rows] == [(c, s + 75, s + 125) for c, s, _ in expected]
    np.testing.assert_allclose([float(row[3]) for row in rows], [row[2][0] for row in expected], atol=0.00501)


@pytest.mark.parametrize("name", ["bed", "tsv", "bedgraph"])
def test_rows_of_a_piece_are_flushed_before_the_next_is_scored(made_up: Callable[..., Any], name: str) -> None:
    class Pipe(io.StringIO):
        shown = 0

        def flush(self) -> None:
            self.shown = len(self.getvalue())

    made, handle, seen = made_up(), Pipe(), []

    def values(piece: Any, advance: Any) -> Any:
        seen.append(handle.shown)
        return type(made).values(made, piece, advance)

    pieces = (values(piece, lambda amount, note="": None) for piece in made.plan.pieces if len(piece.wanted))
    write_rows(pieces, TFS, handle, name)
    assert len(seen) > 4
    assert seen[0] == 0
    assert all(later > sooner for sooner, later in itertools.pairwise(seen))


@pytest.mark.parametrize(
    ("names", "num_tfs", "expected"),
    [([], 1, "bed"), ([], 9, "bed"), (["BedGraph"], 1, "bedgraph"), (["tsv"], 1, "tsv"), (["tsv"], 3, "tsv")],
)
def test_formats_of_a_stream(names: list[str], num_tfs: int, expected: str) -> None:
    assert stream_format(names, num_tfs) == expected


@pytest.mark.parametrize(
    ("names", "num_tfs", "message", "hint"),
    [
        (["bed", "tsv"], 1, "one stream holds one format, not 2", "name one"),
        (["bigwig"], 1, "unknown format of a stream 'bigwig'", "bedgraph"),
        (["bedgraph"], 2, "a bedGraph holds one TF, 2 were asked for", "--format tsv"),
    ],
)
def test_faulty_formats_of_a_stream(names: list[str], num_tfs: int, message: str, hint: str) -> None:
    with pytest.raises(EbertError, match=message) as caught:
        stream_format(names, num_tfs)
    assert hint in caught.value.hint
    assert isinstance(caught.value, UnknownNameError) == ("unknown" in message)
