"""What a dataset is made of: the user's files by cell type, and arrays written and described."""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ebert_core.artifacts import sha256_of
from ebert_core.epigenome.cell_types import canonical_cell, cell_of_file
from ebert_core.errors import EbertError, InputError
from ebert_core.genome.assembly import BUILT_IN_ASSEMBLIES, Assembly
from ebert_core.io.text import read_sheet


def source_entry(path: Path) -> dict[str, str]:
    """What a manifest says of a user's file: its name and digest."""
    if path.is_dir():
        raise InputError(path, "is a folder, expected a file", "name a file in it")
    return {"name": path.name, "sha256": sha256_of(path)}


def genome_source(genome: Path) -> dict[str, str]:
    """`source_entry` of a genome; of one that is built in, the digest of its names and lengths."""
    if genome.is_file():
        return source_entry(genome)
    return {"name": str(genome), "sha256": Assembly.built_in(str(genome)).digest}


def is_built_in(genome: Path) -> bool:
    """Whether a genome is the name of a built-in assembly, and no file of that name is there."""
    return str(genome) in BUILT_IN_ASSEMBLIES and not genome.exists()


def chosen(assembly: Assembly, chroms: tuple[str, ...]) -> Assembly:
    """The assembly of some chromosomes, in the asked order; of all where none is asked for."""
    names = dict.fromkeys(assembly.require(chroms) if chroms else assembly.chroms)
    return Assembly.from_sizes((chrom, assembly.length(chrom)) for chrom in names)


def shape_entry(shape: tuple[int, ...], dtype: np.dtype[Any]) -> dict[str, Any]:
    return {"shape": list(shape), "dtype": str(dtype)}


def write_array(handle: BinaryIO, array: NDArray[Any]) -> None:
    """Write .npy; unlike `np.save`, which loses the number of the error, this says that the disk is full."""
    write_header(handle, array.shape, array.dtype)
    handle.write(np.ascontiguousarray(array).tobytes())


def write_header(handle: BinaryIO, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    described = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(handle, described)


def file_stem(name: str) -> str:
    """A name as a file's name: without separators, and not hidden."""
    stem = name.replace("/", "_").replace("\0", "_")
    return f"_{stem}" if stem.startswith(".") else stem


def cell_files(source: Path, endings: tuple[str, ...], what: str, aliases: dict[str, str]) -> dict[str, Path]:
    """Cell type -> file: from a folder's file names, from a sheet (`cell`, `path`), or one file."""
    return {cell: path for cell, (path,) in replicate_files(source, endings, what, aliases).items()}


def replicate_files(
    source: Path, endings: tuple[str, ...], what: str, aliases: dict[str, str], replicated: str | None = None
) -> dict[str, list[Path]]:
    """`cell_files` where several files of one cell type may be its replicates: those that all end in `replicated`."""
    result: dict[str, list[Path]] = {}
    for cell, path in _named_files(source, endings, what, aliases):
        others = result.setdefault(cell, [])
        if others and {each.suffix for each in (*others, path)} != {replicated}:
            raise InputError(
                path,
                f"is the second file for {cell}",
                f"the first is {others[0].name}; name both in a sheet (cell, path)",
            )
        if any(source_entry(path)["sha256"] == source_entry(other)["sha256"] for other in others):
            raise InputError(path, f"is the same file as {others[0].name}, for {cell}", "name each replicate once")
        others.append(path)
    return result


def _named_files(source: Path, endings: tuple[str, ...], what: str, aliases: dict[str, str]) -> list[tuple[str, Path]]:
    """(cell type, file) of every file that is named."""
    if source.is_dir():
        files = [path for path in sorted(source.iterdir()) if path.name.endswith(endings) and path.name[0] != "."]
        if not files:
            raise EbertError(f"{source} holds no {what} file", f"expected files that end in {', '.join(endings)}")
        return [(canonical_cell(cell_of_file(path), aliases), path) for path in files]
    if not source.is_file():
        raise EbertError(f"{source} is not there", f"name a folder of {what} files, a sheet, or one file")
    if not source.name.endswith((".tsv", ".txt")):
        return [(canonical_cell(cell_of_file(source), aliases), source)]
    named = []
    for line, row in read_sheet(source, ("cell", "path")):
        path = source.parent / row["path"]
        if not path.is_file():
            raise InputError(source, f"names {path}, which is not there", "paths are relative to the sheet", line=line)
        named.append((canonical_cell(row["cell"], aliases), path))
    return named
