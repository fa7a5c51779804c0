"""Predictions for a pipe: BED5, bedGraph or a table of all TFs, row by row as pieces are scored."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, TextIO

import numpy as np

from ebert_core.errors import EbertError, UnknownNameError
from ebert_core.inference.output_files import OutputSettings
from ebert_core.inference.pieces import Coverage, Scored
from ebert_core.inference.tracks import bedgraph_rows, shown
from ebert_core.vocabulary import BIN_BP, STRIDE_BP

STREAM_FORMATS: Final = ("bed", "bedgraph", "tsv")
_ROWS_AT_ONCE: Final = 100_000
_EVERYTHING: Final = OutputSettings()


def stream_format(names: Sequence[str], num_tfs: int) -> str:
    """The format of standard output as typed; `bed` where none was named.

    Raises:
        UnknownNameError: there is none of that name.
        EbertError: several were named, or one that holds one TF only for several.
    """
    if len(names) > 1:
        raise EbertError(
            f"one stream holds one format, not {len(names)}", "name one, or write to a folder with --output"
        )
    name = names[0].casefold() if names else "bed"
    if name not in STREAM_FORMATS:
        raise UnknownNameError("format of a stream", names[0], STREAM_FORMATS)
    if name == "bedgraph" and num_tfs > 1:
        raise EbertError(f"a bedGraph holds one TF, {num_tfs} were asked for", "take --format bed or --format tsv")
    return name


def write_rows(
    pieces: Iterable[Scored],
    tfs: Sequence[str],
    handle: TextIO,
    name: str = "bed",
    settings: OutputSettings = _EVERYTHING,
) -> Coverage:
    """Write the rows of each piece as soon as it is there.

    Args:
        tfs: the scores' columns.
        name: `bed` is BED5 of the 200-bp bin with the TF as its name and the probability as its score, bin by bin;
            `bedgraph` is the bin's central 50 bp and the probability; `tsv` has a header, chrom, start and end of the
            bin, and a column per TF. Probabilities have six significant digits.
        settings: `min_score` leaves out bins under it, of a table those in which every TF is.

    Returns:
        what was scored.
    """
    coverage = Coverage()
    if name == "tsv":
        handle.write("\t".join(["chrom", "start", "end", *tfs]) + "\n")
    for scored in pieces:
        coverage += scored.piece.coverage
        for first in range(0, len(scored.probabilities), _ROWS_AT_ONCE):
            handle.write(_rows(scored, slice(first, first + _ROWS_AT_ONCE), tfs, name, settings))
        handle.flush()
    return coverage


def _rows(scored: Scored, some: slice, tfs: Sequence[str], name: str, settings: OutputSettings) -> str:
    chrom, bins, values = scored.piece.chrom, scored.piece.bins[some], scored.probabilities[some]
    if name == "bedgraph":
        return bedgraph_rows(chrom, *shown(bins, values[:, 0], settings))
    kept, least = np.ones_like(values, dtype=bool), np.float32(settings.min_score or 0)
    kept &= values >= least
    if name == "tsv":
        whole = kept.any(axis=1)
        starts = (bins[whole] * STRIDE_BP).tolist()
        rows = zip(starts, values[whole].tolist(), strict=True)
        return "".join(
            f"{chrom}\t{start}\t{start + BIN_BP}\t" + "\t".join(f"{value:.6g}" for value in row) + "\n"
            for start, row in rows
        )
    return "".join(
        f"{chrom}\t{start}\t{start + BIN_BP}\t{tfs[column]}\t{value:.6g}\n"
        for start, column, value in zip(
            (np.repeat(bins, len(tfs))[kept.ravel()] * STRIDE_BP).tolist(),
            np.tile(np.arange(len(tfs)), len(bins))[kept.ravel()].tolist(),
            values[kept].tolist(),
            strict=True,
        )
    )
