"""Which ChIP-seq peaks and label tables belong to which TF and cell type: from file names or from a sheet."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ebert_core.errors import EbertError, InputError
from ebert_core.io.text import read_sheet

_ENDING: Final = r"\.(?:narrowPeak|broadPeak|bed)(?:\.gz|\.bgz)?"
# The challenge's spelling, then `TF.CELL.narrowPeak.gz`.
_CHALLENGE: Final = re.compile(
    rf"ChIPseq\.(?P<cell>.+)\.(?P<tf>[^.]+)\.(?P<kind>conservative|relaxed)(?:\.train)?{_ENDING}", re.IGNORECASE
)
_PLAIN: Final = re.compile(rf"(?P<tf>[^.]+)\.(?P<cell>.+?){_ENDING}", re.IGNORECASE)
# `TF.train.labels.tsv.gz` of the challenge, `TF.labels.tsv`.
_TABLE: Final = re.compile(r"(?P<tf>[^.]+)\.(?:.+\.)?labels\.tsv(?:\.gz|\.bgz)?", re.IGNORECASE)


@dataclass(frozen=True)
class ChipExperiment:
    """The peaks of one TF in one cell type.

    Attributes:
        tf, cell: as the file or the sheet spells them.
        conservative: peaks that make a bin bound.
        relaxed: peaks that keep a bin from being unbound; the conservative file again where there is no other.
    """

    tf: str
    cell: str
    conservative: Path
    relaxed: Path


@dataclass(frozen=True)
class ChipFiles:
    """What `--chip` names.

    Attributes:
        experiments: peak files, sorted by TF and cell type.
        tables: (TF as the file's name spells it, label table), sorted by name.
        notes: what a user should know of files that were left out, a sentence each.
    """

    experiments: list[ChipExperiment]
    tables: list[tuple[str, Path]]
    notes: list[str]


def find_chip(source: Path) -> ChipFiles:
    """Everything in a folder, one file, or the experiments of a sheet.

    Args:
        source: a folder or one file, of peaks (`TF.CELL.narrowPeak.gz`, or the challenge's `ChIPseq.CELL.TF...`) or of
            labels (`TF.labels.tsv.gz`, `TF.train.labels.tsv.gz`); or a sheet of peaks (columns `tf`, `cell`, `peaks`,
            optional `relaxed`; paths relative to the sheet).

    Raises:
        EbertError: there is nothing of the kind, or no peaks but relaxed ones.
        InputError: a file whose name says no TF and cell type, or a second file of one kind for a pair.
    """
    if source.is_dir():
        files = [path for path in sorted(source.iterdir()) if path.is_file() and path.name[0] != "."]
        peaks = [path for path in files if re.search(f"{_ENDING}$", path.name, re.IGNORECASE)]
        tables = [path for path in files if _TABLE.fullmatch(path.name)]
        if not peaks and not tables:
            raise EbertError(
                f"{source} holds no peak file and no label table",
                "expected TF.CELL.narrowPeak.gz, or ChIPseq.CELL.TF.conservative.train.narrowPeak.gz with "
                "....relaxed..., or TF.train.labels.tsv.gz",
            )
        return _named(peaks, tables, source)
    if not source.is_file():
        raise EbertError(f"{source} is not there", "name a folder of peak files or a sheet with --chip")
    if _TABLE.fullmatch(source.name):
        return _named([], [source], source)
    if _PLAIN.fullmatch(source.name) or _CHALLENGE.fullmatch(source.name):
        return _named([source], [], source)
    return ChipFiles(_from_sheet(source), [], [])


def _named(peaks: list[Path], tables: list[Path], source: Path) -> ChipFiles:
    """Files by what their names say."""
    experiments, notes = _from_files(peaks, source) if peaks else ([], [])
    if not experiments and not tables:
        raise EbertError(
            f"{source} holds relaxed peaks only", "bound bins come from conservative peaks; add those files"
        )
    by_tf = [(match["tf"], path) for path in tables if (match := _TABLE.fullmatch(path.name))]
    return ChipFiles(experiments, by_tf, notes)


def _from_files(files: list[Path], source: Path) -> tuple[list[ChipExperiment], list[str]]:
    found: dict[tuple[str, str], dict[str, Path]] = {}
    for path in files:
        match = _CHALLENGE.fullmatch(path.name) or _PLAIN.fullmatch(path.name)
        if not match:
            raise InputError(path, "does not say its TF and cell type", "call it TF.CELL.narrowPeak.gz, or use a sheet")
        kinds = found.setdefault((match["tf"], match["cell"]), {})
        kind = (match.groupdict().get("kind") or "conservative").lower()
        if kind in kinds:
            raise InputError(
                path, f"is the second file for {match['tf']} in {match['cell']}", f"the first is {kinds[kind].name}"
            )
        kinds[kind] = path
    experiments = [
        ChipExperiment(tf, cell, kinds["conservative"], kinds.get("relaxed", kinds["conservative"]))
        for (tf, cell), kinds in sorted(found.items())
        if "conservative" in kinds
    ]
    lonely = sum("conservative" not in kinds for kinds in found.values())
    notes = [f"{source.name}: {lonely} relaxed peak file(s) without a conservative one were left out"] if lonely else []
    both = any("relaxed" in kinds for kinds in found.values())
    single = [f"{tf} in {cell}" for (tf, cell), kinds in sorted(found.items()) if set(kinds) == {"conservative"}]
    if both and single:
        notes.append(
            f"{source.name}: {len(single)} experiment(s) have no relaxed file; their conservative peaks serve as both "
            f"({', '.join(single[:6])}{' ...' if len(single) > 6 else ''})"
        )
    return experiments, notes


def _from_sheet(sheet: Path) -> list[ChipExperiment]:
    experiments: dict[tuple[str, str], ChipExperiment] = {}
    for line, row in read_sheet(sheet, ("tf", "cell", "peaks"), ("relaxed",)):
        peaks = sheet.parent / row["peaks"]
        relaxed = sheet.parent / row["relaxed"] if row.get("relaxed") else peaks
        for path in (peaks, relaxed):
            if not path.is_file():
                raise InputError(
                    sheet, f"names {path}, which is not there", "paths are relative to the sheet", line=line
                )
        pair = row["tf"], row["cell"]
        if pair in experiments:
            raise InputError(
                sheet, f"lists {pair[0]} in {pair[1]} twice", "keep one row per TF and cell type", line=line
            )
        experiments[pair] = ChipExperiment(*pair, peaks, relaxed)
    return list(experiments.values())
