"""From a user's files to a dataset: the only place that reads them all.

A new dataset is built beside its target and appears whole. An existing one is extended in place: arrays are added
first, the manifest that knows them is replaced last, so a killed run leaves the old dataset as it was. One epigenome,
one TF or one chromosome is in memory at a time.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ebert_core.artifacts import (
    DATASET_FORMAT,
    MANIFEST_NAME,
    build_manifest,
    exclusive_lock,
    explain_os_errors,
    publish_folder,
    read_json,
    sha256_of,
)
from ebert_core.config import PrepareConfig
from ebert_core.data.builder import KINDS, DatasetBuilder
from ebert_core.data.dataset import Dataset
from ebert_core.data.expression import add_expression, add_gene_names
from ebert_core.data.files import genome_source, is_built_in
from ebert_core.data.label_export import write_labels
from ebert_core.data.labelling import add_labels
from ebert_core.data.transcripts import add_tss
from ebert_core.epigenome.state_models import load_state_model
from ebert_core.errors import EbertError, InputError
from ebert_core.reporting import SILENT, Reporter


@dataclass(frozen=True)
class Prepared:
    """What `prepare` did: the dataset, and how many tracks of each kind were added or found already there."""

    dataset: Dataset
    added: dict[str, int]
    kept: dict[str, int]


def prepare(config: PrepareConfig, reporter: Reporter = SILENT) -> Prepared:
    """Make a dataset, or add what is new to an existing one; then write its label tables, where they are asked for.

    Raises:
        EbertError: no genome for a new dataset; another genome, exclusion list or regions for an existing one; a track
            of the same name from another file, or a label table that is there (unless `config.overwrite`).
        InputError: a fault in any file; then nothing is written.
    """
    _check_names(config)
    if _adds_nothing(config) and _holds_dataset(config.output):
        prepared = Prepared(Dataset.open(config.output), dict.fromkeys(KINDS, 0), dict.fromkeys(KINDS, 0))
    else:
        prepared = _make_or_extend(config, reporter)
    if config.write_labels is not None:
        tables = write_labels(prepared.dataset, config.write_labels, overwrite=config.overwrite, reporter=reporter)
        reporter.log(f"{config.write_labels}: {len(tables)} label table(s)")
    return prepared


def _make_or_extend(config: PrepareConfig, reporter: Reporter) -> Prepared:
    output = config.output
    with exclusive_lock(output.resolve() if output.is_symlink() or output.name in ("", "..") else output) as target:
        existing = _holds_dataset(target)
        if not existing and config.genome is None:
            raise EbertError(f"there is no dataset in {target} yet", "a new one needs a reference: --genome hg19.fa")
        if config.genome is None or (existing and not config.overwrite):
            dataset = Dataset.open(target)
            _refuse_other_genome(dataset, config)
            with _extending(target) as builder_folder:
                return _fill(
                    DatasetBuilder(builder_folder, dataset.manifest, reporter, config.overwrite), config, target
                )
        with publish_folder(target, overwrite=target.exists()) as staged:
            builder = DatasetBuilder(staged, _empty_manifest(), reporter, overwrite=False)
            builder.add_genome(config.genome, config.chroms)
            filled = _fill(builder, config, target)
        return Prepared(Dataset.open(target), filled.added, filled.kept)


def _adds_nothing(config: PrepareConfig) -> bool:
    """Whether a dataset that is there is only to be asked, which needs no right to write it."""
    asked = {"output": config.output, "write_labels": config.write_labels, "overwrite": config.overwrite}
    return config == PrepareConfig(**asked)


def _check_names(config: PrepareConfig) -> None:
    """Refuse what can be refused before the genome is read, which takes a minute."""
    given = {
        "states": config.states,
        "chip": config.chip,
        "accessibility": config.accessibility,
        "tss": config.tss,
        "expression": config.expression,
        "gene-names": config.gene_names,
        "aliases": config.aliases,
        "regions": config.regions,
    }
    for option, path in [*given.items(), *(("exclude", path) for path in config.exclude)]:
        if path is not None and not path.exists():
            raise InputError(path, "is not there", f"check the path given to --{option}")
    if config.write_labels is not None and not config.write_labels.is_dir() and os.path.lexists(config.write_labels):
        raise InputError(config.write_labels, "is no folder", "name a folder for label tables with --write-labels")
    if config.state_model is not None:
        load_state_model(config.state_model)


def _holds_dataset(target: Path) -> bool:
    """Whether there is a dataset; `EbertError` where something else is there.

    A dataset appears by renaming, so the folder that the user stands in cannot become a new one.
    """
    manifest = target / MANIFEST_NAME
    if manifest.is_file():
        found = read_json(manifest)
        if isinstance(found, dict) and found.get("kind") == "dataset":
            return True
    elif not target.exists() or (target.is_dir() and not any(target.iterdir()) and target.resolve() != Path.cwd()):
        return False
    raise EbertError(f"{target} exists and is not a dataset", "choose another folder with --output")


def _empty_manifest() -> dict[str, Any]:
    body: dict[str, Any] = {"state_model": None, "aliases": {}, "sequence": None}
    body |= {"states": {}, "accessibility": {}, "labels": {}}
    return build_manifest("dataset", DATASET_FORMAT, body)


def _refuse_other_genome(dataset: Dataset, config: PrepareConfig) -> None:
    (known,) = dataset.manifest["assembly"]["sources"]
    other = {dataset.assembly.resolve(name) for name in config.chroms} not in (set(), set(dataset.assembly.chroms))
    if config.genome is not None:
        if not config.genome.is_file() and not is_built_in(config.genome):
            raise InputError(config.genome, "is not there", "check the path of the genome's FASTA file")
        other = other or known["sha256"] != genome_source(config.genome)["sha256"]
    if other:
        raise EbertError(
            f"{dataset.path} was made from another genome or other chromosomes ({known['name']}: "
            f"{', '.join(dataset.assembly.chroms[:6])})",
            "name the genome and pass --overwrite to make it anew, or choose another folder with --output",
        )


@contextlib.contextmanager
def _extending(target: Path) -> Iterator[Path]:
    """Let arrays be added to a dataset in place; those of a run that fails before its manifest are removed again."""
    before = set(target.rglob("*"))
    manifest = (target / MANIFEST_NAME).read_bytes()
    try:
        with explain_os_errors(target):
            yield target
    except BaseException:
        if (target / MANIFEST_NAME).read_bytes() == manifest:
            for path in sorted(set(target.rglob("*")) - before, reverse=True):
                path.rmdir() if path.is_dir() else path.unlink()
        raise


def _fill(builder: DatasetBuilder, config: PrepareConfig, target: Path) -> Prepared:
    """Add everything the configuration names, then write the manifest."""
    if config.aliases is not None:
        builder.add_aliases(config.aliases)
    given = {"exclude": config.exclude, "regions": (config.regions,) if config.regions else ()}
    if "excluded" in builder.manifest:
        _refuse_other_bins(builder.manifest, given, target)
    else:
        builder.add_exclusion(config.exclude)
        builder.add_regions(config.regions)
    if config.states is not None:
        builder.add_states(config.states, config.state_model)
    if config.accessibility is not None:
        builder.add_accessibility(config.accessibility)
    if config.chip is not None:
        add_labels(builder, config.chip)
    if config.tss is not None:
        add_tss(builder, config.tss)
    if config.expression is not None:
        add_expression(builder, config.expression)
    if config.gene_names is not None:
        add_gene_names(builder, config.gene_names)
    builder.finish()
    return Prepared(Dataset(target, builder.manifest), builder.added, builder.kept)


def _refuse_other_bins(manifest: dict[str, Any], given: dict[str, tuple[Path, ...]], target: Path) -> None:
    """`EbertError` where an exclusion list or regions are given that the dataset was not made with."""
    kinds = {"exclude": ("excluded", "an", "exclusion list"), "regions": ("regions", "a", "regions file")}
    for option, paths in given.items():
        key, article, name = kinds[option]
        known = {source["sha256"] for source in (manifest[key] or {"sources": ()})["sources"]}
        if paths and known != {sha256_of(path) for path in paths}:
            raise EbertError(
                f"{target} was made with{' another' if known else f'out {article}'} {name}",
                f"labels depend on it: leave --{option} out, or make the dataset anew with --genome and --overwrite",
            )
