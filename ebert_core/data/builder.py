"""Builds a dataset's arrays and the manifest that describes them; one epigenome, TF or chromosome at a time."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ebert_core.artifacts import MANIFEST_NAME, file_entry, publish_file, write_json
from ebert_core.data.dataset import EXCLUDED_FILE, REGIONS_FILE, SEQUENCE_FILE, named_entries
from ebert_core.data.files import (
    cell_files,
    chosen,
    file_stem,
    genome_source,
    is_built_in,
    replicate_files,
    shape_entry,
    source_entry,
    write_array,
    write_header,
)
from ebert_core.epigenome.accessibility import BAM_SUFFIX, BIGWIG_SUFFIXES, cut_track, read_accessibility
from ebert_core.epigenome.state_models import StateModel, load_state_model
from ebert_core.epigenome.state_tracks import build_state_track, detect_shared_model, read_segmentation
from ebert_core.errors import EbertError
from ebert_core.genome.assembly import Assembly
from ebert_core.genome.bins import BenchmarkBins
from ebert_core.genome.intervals import Positions
from ebert_core.io.bed import merged_regions, read_bin_regions
from ebert_core.io.fasta import Fasta, count_ambiguous
from ebert_core.io.sizes import is_sizes, read_sizes
from ebert_core.io.text import read_sheet
from ebert_core.reporting import Reporter
from ebert_core.vocabulary import BASE_N

_SEGMENTATION_ENDINGS: Final = (".bed", ".bed.gz", ".bed.bgz")
_ACCESSIBILITY_ENDINGS: Final = (
    *_SEGMENTATION_ENDINGS, ".narrowPeak", ".narrowPeak.gz", *BIGWIG_SUFFIXES, BAM_SUFFIX
)  # fmt: skip
# Folders of a dataset; of what they hold, `added` and `kept` of the builder count the arrays.
KINDS: Final = ("states", "accessibility", "labels", "tss", "expression", "gene_names")


class DatasetBuilder:
    """Writes arrays into a folder and keeps the manifest that describes them."""

    def __init__(self, folder: Path, manifest: dict[str, Any], reporter: Reporter, overwrite: bool) -> None:
        self.folder = folder
        self.manifest = manifest
        self.reporter = reporter
        self.overwrite = overwrite
        self.added = dict.fromkeys(KINDS, 0)
        self.kept = dict.fromkeys(KINDS, 0)

    @property
    def assembly(self) -> Assembly:
        return Assembly.from_sizes((name, length) for name, length in self.manifest["assembly"]["chroms"])

    def finish(self) -> None:
        """Publish the manifest; only now do readers see what was added."""
        write_json(self.folder / MANIFEST_NAME, self.manifest)
        named = {self.folder / entry["file"] for entry in named_entries(self.manifest)}
        for group in KINDS:
            for path in (self.folder / group).rglob("*"):
                if path.is_file() and path not in named:
                    path.unlink()  # replaced just now, or left by a killed run

    def add_genome(self, genome: Path, chroms: tuple[str, ...]) -> None:
        """The assembly and, where `genome` is a FASTA, its sequence; `chroms` chooses some (none: all)."""
        ambiguous = None
        if is_built_in(genome):
            assembly = chosen(Assembly.built_in(str(genome)), chroms)
        elif is_sizes(genome):
            assembly = chosen(read_sizes(genome), chroms)
        else:
            assembly, ambiguous = self._add_sequence(genome, chroms)
        self.manifest["assembly"] = {**assembly.to_json(), "sources": [genome_source(genome)]}
        self.reporter.log(
            f"genome: {assembly.name}, {len(assembly.chroms)} sequence(s), {sum(assembly.lengths):,} bp, "
            + (
                "chromosome sizes alone"
                if ambiguous is None
                else f"of which {ambiguous:,} are N or another ambiguity letter"
            )
        )

    def _add_sequence(self, genome: Path, chroms: tuple[str, ...]) -> tuple[Assembly, int]:
        with Fasta(genome) as fasta:
            assembly = chosen(fasta.assembly, chroms)
            path = self.folder / SEQUENCE_FILE
            ambiguous = 0
            with (
                self.reporter.task("reading the genome", assembly.flat_bp, "bp") as advance,
                path.open("wb") as handle,
            ):
                write_header(handle, (assembly.flat_bp,), np.dtype(np.uint8))
                for chrom, padded in zip(assembly.chroms, np.diff(assembly.offsets), strict=True):
                    codes = fasta.codes(chrom)
                    handle.write(codes.data)
                    handle.write(bytes([BASE_N]) * int(padded - len(codes)))
                    ambiguous += count_ambiguous(codes)
                    advance(len(codes), chrom)
        self.manifest["sequence"] = {
            **file_entry(path),
            **shape_entry((assembly.flat_bp,), np.dtype(np.uint8)),
            "ambiguous_bases": ambiguous,
        }
        return assembly, ambiguous

    def add_aliases(self, sheet: Path) -> None:
        for _, row in read_sheet(sheet, ("alias", "cell")):
            self.manifest["aliases"][row["alias"]] = row["cell"]

    def add_exclusion(self, paths: tuple[Path, ...]) -> None:
        """The union of exclusion lists."""
        union, notes = merged_regions(paths, self.assembly)
        self.tell(notes)
        entry, regions = self._save_regions(EXCLUDED_FILE, union)
        self.manifest["excluded"] = {**entry, "sources": [source_entry(source) for source in paths]}
        if paths:
            self.reporter.log(f"exclusion list: {len(regions):,} regions, {int(np.diff(regions).sum()):,} bp")

    def add_regions(self, path: Path | None) -> None:
        """The regions that the benchmark's bins tile; without a file, the exclusion list decides."""
        self.manifest["regions"] = None
        if path is None:
            return
        regions, notes = read_bin_regions(path, self.assembly)
        self.tell(notes)
        entry, _ = self._save_regions(REGIONS_FILE, regions)
        self.manifest["regions"] = {**entry, "sources": [source_entry(path)]}
        bins = BenchmarkBins.from_regions(self.assembly, regions)
        self.reporter.log(f"regions: {bins.num_rows():,} of the benchmark's bins on {len(bins.chroms)} sequence(s)")

    def _save_regions(
        self, name: str, regions: Mapping[str, tuple[Positions, Positions]]
    ) -> tuple[dict[str, Any], NDArray[np.int64]]:
        """Save regions per chromosome as (start, end) rows on the flat axis."""
        rows = [
            np.stack(regions[chrom], axis=1) + self.assembly.offset(chrom)
            for chrom in self.assembly.chroms
            if chrom in regions
        ]
        flat = np.concatenate(rows).astype(np.int64) if rows else np.empty((0, 2), dtype=np.int64)
        path = self.folder / name
        with path.open("wb") as handle:
            write_array(handle, flat)
        return {**file_entry(path), **shape_entry(flat.shape, flat.dtype)}, flat

    def add_states(self, source: Path, state_model: str | None) -> None:
        files = cell_files(source, _SEGMENTATION_ENDINGS, "segmentation", self.manifest["aliases"])
        model = self._settle_state_model(files, state_model)
        with self.reporter.task("reading chromatin states", len(files), "epigenomes") as advance:
            for cell, path in files.items():
                sources = [source_entry(path)]
                if self.is_new("states", self.manifest["states"], cell, sources):
                    segmentation = read_segmentation(path, self.assembly)
                    track = build_state_track(segmentation, self.assembly, model)
                    self.tell(track.notes)
                    self._warn_uncovered(path, track.uncovered_bins, len(track.codes))
                    entry = self.save("states", cell, track.codes, sources)
                    self.manifest["states"][cell] = {**entry, "uncovered_bins": track.uncovered_bins}
                advance(1, cell)

    def _warn_uncovered(self, path: Path, uncovered: int, total: int) -> None:
        # Roadmap's ChromHMM files end at the last whole bin of each chromosome; that much is no news.
        if uncovered > len(self.assembly.chroms):
            self.reporter.warn(f"{path.name}: {uncovered:,} of {total:,} bins have no state and stay unknown")

    def _settle_state_model(self, files: dict[str, Path], name: str | None) -> StateModel:
        known = StateModel.from_json(self.manifest["state_model"]) if self.manifest["state_model"] else None
        if name is not None:
            model = load_state_model(name)
        elif known is not None:
            return known
        else:
            # A file may use a few states only, so the names of one file seldom settle the model; those of four do.
            some = [read_segmentation(path, self.assembly) for path in list(files.values())[:4]]
            model = detect_shared_model(some, [path.name for path in files.values()])
        if known is not None and known != model:
            raise EbertError(
                f"the dataset's state model is {known.name}, not {model.name}",
                "leave --state-model out, or make another dataset with --output",
            )
        self.manifest["state_model"] = model.to_json()
        self.reporter.log(f"state model: {model.name}, {len(model.states)} states")
        return model

    def add_accessibility(self, source: Path) -> None:
        files = replicate_files(source, _ACCESSIBILITY_ENDINGS, "accessibility", self.manifest["aliases"], BAM_SUFFIX)
        with self.reporter.task("reading accessibility", len(files), "tracks") as advance:
            for cell, paths in files.items():
                sources = [source_entry(path) for path in paths]
                if self.is_new("accessibility", self.manifest["accessibility"], cell, sources):
                    bam = paths[0].suffix == BAM_SUFFIX
                    reading = cut_track(paths, self.assembly) if bam else read_accessibility(paths[0], self.assembly)
                    track, notes = reading
                    self.tell(notes)
                    self.manifest["accessibility"][cell] = self.save("accessibility", cell, track, sources)
                advance(1, cell)

    def is_new(self, kind: str, entries: dict[str, Any], cell: str, sources: list[dict[str, str]]) -> bool:
        """Whether a cell type's array must be built; see `must_build`."""
        otherwise = "or give the cell type another name in a sheet"
        return self.must_build(kind.split()[-1], entries.get(cell), f"{kind} of {cell}", sources, otherwise)

    def must_build(
        self,
        counted: str,
        old: dict[str, Any] | None,
        what: str,
        sources: list[dict[str, str]],
        otherwise: str = "or make another dataset with --output",
    ) -> bool:
        """Whether an array must be built; one from the same files is kept, one from other files is an error."""
        if old is not None and [each["sha256"] for each in old["sources"]] == [each["sha256"] for each in sources]:
            self.kept[counted] += 1
            return False
        if old is not None and not self.overwrite:
            raise EbertError(
                f"the dataset already holds {what}, from {old['sources'][0]['name']}",
                f"pass --overwrite to replace them by {sources[0]['name']}, {otherwise}",
            )
        self.added[counted] += 1
        return True

    def save(self, group: str, cell: str, array: NDArray[Any], sources: list[dict[str, str]]) -> dict[str, Any]:
        """Write one array under a name that no file has yet, and describe it."""
        stem = file_stem(cell)
        path = self.folder / group / f"{stem}.npy"
        for number in itertools.count(2):
            if not path.exists():
                break
            path = path.with_name(f"{stem}.{number}.npy")
        with publish_file(path) as staged, staged.open("wb") as handle:
            write_array(handle, array)
        return {
            "file": path.relative_to(self.folder).as_posix(),
            **file_entry(path),
            **shape_entry(array.shape, array.dtype),
            "sources": sources,
        }

    def tell(self, notes: list[str]) -> None:
        """Say what was noticed while reading."""
        for note in notes:
            self.reporter.log(note)
