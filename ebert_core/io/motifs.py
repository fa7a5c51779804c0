"""Binding motifs in MEME's minimal format (JASPAR, HOCOMOCO and others offer it); plain or gzip."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ebert_core.errors import InputError, UnknownNameError
from ebert_core.io.text import read_lines
from ebert_core.vocabulary import BASES, NUM_BASES

UNIFORM: Final = (0.25, 0.25, 0.25, 0.25)
# Weight of the background mixed into each column, so that a probability of 0 costs much but not everything.
_BACKGROUND_WEIGHT: Final = 0.01
# Printed probabilities are rounded, in some collections to two digits.
_SUM_TOLERANCE: Final = 0.02
_EXPECTED: Final = "expected MEME's minimal format, as JASPAR and HOCOMOCO offer it"
_VERSION: Final = re.compile(r"(?P<matrix>.+)\.(?P<version>\d+)")


@dataclass(frozen=True)
class Motif:
    """A position probability matrix.

    Attributes:
        name: identifier, such as MA0139.1.
        alt_name: usually the TF, such as CTCF; '' where the file gives none.
        probabilities: float32 of shape (width, 4), columns A, C, G, T; rows add up to 1.
    """

    name: str
    alt_name: str
    probabilities: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.probabilities)

    @property
    def label(self) -> str:
        """Both names, for people."""
        return f"{self.alt_name} ({self.name})" if self.alt_name else self.name

    def log_odds(self, background: Sequence[float] = UNIFORM) -> NDArray[np.float32]:
        """log2 of probability over background, bits, float32 of shape (width, 4); 1 % of background is mixed in."""
        base = np.asarray(background, dtype=np.float64)
        mixed = (1 - _BACKGROUND_WEIGHT) * self.probabilities.astype(np.float64) + _BACKGROUND_WEIGHT * base
        return np.log2(mixed / base).astype(np.float32)


def read_motifs(path: Path) -> list[Motif]:
    """All motifs of a MEME file.

    Raises:
        InputError: not a MEME file, another alphabet than ACGT, a matrix that is cut short, a row without four
            probabilities that add up to 1, or no motif at all.
    """
    motifs: list[Motif] = []
    lines = ((number, line.strip()) for number, line in read_lines(path))
    heading: tuple[int, list[str]] | None = None
    seen_version = False
    for number, line in lines:
        if line.startswith("MEME version"):
            seen_version = True
        elif line and not seen_version:
            raise InputError(path, "is not a MEME file, which begins with 'MEME version'", _EXPECTED, line=number)
        elif line.startswith("ALPHABET") and re.sub(r"[\s=]", "", line[8:]) != BASES:
            raise InputError(
                path, f"has the alphabet {line[8:].strip(' =')!r}, expected {BASES}", "give motifs of DNA", line=number
            )
        elif line.startswith("MOTIF"):
            if heading:
                raise InputError(
                    path, f"motif {heading[1][0]} has no letter-probability matrix", _EXPECTED, line=heading[0]
                )
            heading = number, line.split()[1:]
            if not heading[1]:
                raise InputError(path, "has a motif without a name", _EXPECTED, line=number)
        elif line.startswith("letter-probability matrix") and heading:
            name, *rest = heading[1]
            motifs.append(Motif(name, " ".join(rest), _read_matrix(path, name, (number, line), lines)))
            heading = None
    if heading or not motifs:
        raise InputError(path, f"ends within motif {heading[1][0]}" if heading else "has no motif", "is it complete?")
    return motifs


def _read_matrix(
    path: Path, name: str, header: tuple[int, str], lines: Iterator[tuple[int, str]]
) -> NDArray[np.float32]:
    """The rows that follow a matrix header: as many as its `w=` says, or up to the next line that is no row."""
    number, text = header
    stated = re.search(r"\bw\s*=\s*(\d+)", text)
    width = int(stated.group(1)) if stated else None
    rows: list[list[float]] = []
    while width is None or len(rows) < width:
        number, line = next(lines, (number, ""))
        if not line:
            break
        try:
            row = [float(field) for field in line.split()]
        except ValueError:
            problem = f"motif {name}: {line[:40]!r} is no row of numbers"
            raise InputError(path, problem, _EXPECTED, line=number) from None
        if len(row) != NUM_BASES or min(row) < 0 or not abs(sum(row) - 1) <= _SUM_TOLERANCE:
            problem = f"motif {name}: {line[:60]!r} is not four probabilities that add up to 1"
            raise InputError(path, problem, _EXPECTED, line=number)
        rows.append(row)
    if not rows or (width is not None and len(rows) < width):
        problem = f"motif {name} has {len(rows)} rows, its header says {width or 'more'}"
        raise InputError(path, problem, "is it complete?", line=number)
    matrix = np.array(rows)
    return (matrix / matrix.sum(axis=1, keepdims=True)).astype(np.float32)


def choose_motifs(
    motifs: Sequence[Motif], tfs: Iterable[str], common: Iterable[str] = ()
) -> tuple[list[Motif], list[str]]:
    """Every matrix of the TFs, then one of each common TF, each once; and the names without any.

    A TF's matrices are all that answer to its name in the same way, older versions too: they were learned from other
    experiments and are not the same. A common TF's is the widest version of its first matrix (`find_motif`): JASPAR's
    newest have lost flanks that bind a little.
    """
    chosen: dict[str, Motif] = {}
    missing = []
    for name, every in [*((tf, True) for tf in tfs), *((name, False) for name in common)]:
        try:
            found = _matrices(motifs, name) if every else [_widest_version(motifs, find_motif(motifs, name))]
            chosen |= {motif.name: motif for motif in found if motif.name not in chosen}
        except UnknownNameError:
            missing.append(name)
    return list(chosen.values()), list(dict.fromkeys(missing))


def find_motif(motifs: Sequence[Motif], tf: str) -> Motif:
    """The motif of a TF, whatever the case of its name.

    Tried in turn: the alternative name, the name, a partner of a dimer (`MAX::MYC`), the name up to its first `_` or
    `.` (HOCOMOCO). Of several matrices the one with the lowest identifier is taken (JASPAR's first for the TF), of
    its versions the newest; without version numbers, the last in the file.

    Raises:
        UnknownNameError: none answers to the name.
    """
    return _newest(_matrices(motifs, tf))


def _matrices(motifs: Sequence[Motif], tf: str) -> list[Motif]:
    """All that answer to the name in the first way in which any does; `UnknownNameError` where none does."""
    wanted = tf.casefold()
    for keys in (_alt_name, _name, _partners, _stem):
        if found := [motif for motif in motifs if wanted in keys(motif)]:
            return found
    raise UnknownNameError("motif", tf, (motif.alt_name or motif.name for motif in motifs))


def _widest_version(motifs: Sequence[Motif], of: Motif) -> Motif:
    """The widest of the versions of a matrix, of several as wide the last in the file."""
    if not (match := _VERSION.fullmatch(of.name)):
        return of
    found = ((motif, _VERSION.fullmatch(motif.name)) for motif in motifs)
    versions = [motif for motif, other in found if other and other["matrix"] == match["matrix"]]
    return max(reversed(versions), key=len)


def _alt_name(motif: Motif) -> tuple[str, ...]:
    return (motif.alt_name.casefold(),)


def _name(motif: Motif) -> tuple[str, ...]:
    return (motif.name.casefold(),)


def _partners(motif: Motif) -> tuple[str, ...]:
    return tuple((motif.alt_name or motif.name).casefold().split("::"))


def _stem(motif: Motif) -> tuple[str, ...]:
    return (re.split(r"[_.]", motif.name.casefold(), maxsplit=1)[0],)


def _newest(motifs: Sequence[Motif]) -> Motif:
    versions = [match for motif in motifs if (match := _VERSION.fullmatch(motif.name))]
    if len(versions) < len(motifs):
        return motifs[-1]
    first = min(match["matrix"] for match in versions)
    ranked = [(int(match["version"]), i) for i, match in enumerate(versions) if match["matrix"] == first]
    return motifs[max(ranked)[1]]
