"""A run of `ebert variants`: a table of scores, an annotated VCF, the list of what was skipped, and their sidecar."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Protocol, TextIO

import numpy as np

from ebert_core.artifacts import (
    SIDECAR_SUFFIX,
    build_manifest,
    exclusive_lock,
    file_entry,
    publish_file,
    refuse_existing,
    sha256_of,
)
from ebert_core.data.dataset import Dataset
from ebert_core.errors import EbertError
from ebert_core.inference.alleles import NO_ALT, Judge, Survey, survey
from ebert_core.inference.models import LoadedModel
from ebert_core.inference.predictor import CellStates, provenance
from ebert_core.inference.rescore import model_rescore
from ebert_core.inference.variants import ScoredRecord, VariantScorer, score_vcf
from ebert_core.inference.windows import Floats, Layout
from ebert_core.io.bgzip import BgzipWriter
from ebert_core.io.vcf import InfoField, VcfFile, annotated_header, annotated_record, info_key
from ebert_core.model.device import Device
from ebert_core.reporting import SILENT, Reporter

VARIANT_SCORES: Final = "variant scores"
VARIANT_SCORES_FORMAT: Final = 1
SCORE_COLUMNS: Final = (
    "chrom", "pos", "id", "ref", "alt", "tf", "ref_logit", "alt_logit", "delta_logit", "ref_probability",
    "alt_probability", "delta",
)  # fmt: skip
_SKIPPED_COLUMNS: Final = ("chrom", "pos", "id", "ref", "alt", "line", "reason")
_LONGEST_NAMES: Final = 80


@dataclass(frozen=True)
class VariantRequest:
    """What to score.

    Attributes:
        tfs: as the model spells them.
        cell: cell type and its states.
        both_strands: average the logits of the two strands.
    """

    tfs: tuple[str, ...]
    cell: CellStates
    both_strands: bool = True

    @property
    def stem(self) -> str:
        """TFS.CELL, for file names."""
        names = "+".join(self.tfs)
        names = names if len(names) <= _LONGEST_NAMES else f"{self.tfs[0]}+{len(self.tfs) - 1}"
        return f"{names}.{self.cell.name}".replace("/", "_")


@dataclass(frozen=True)
class VariantOutputs:
    """Where scores go.

    Attributes:
        table: TSV, bgzip where its name ends so; None writes it to `stream`.
        annotated: VCF, likewise; None writes none.
        stream: takes the table where it is no file.
        overwrite: replace what is there.
    """

    table: Path | None
    annotated: Path | None = None
    stream: TextIO | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.table is not None and self.table == self.annotated:
            raise EbertError(f"{self.table} is to be both the table and the VCF", "give them two names")

    @property
    def stem(self) -> Path | None:
        """What the list of skipped alleles and the sidecar are called after; None where all goes to a stream."""
        path = self.table or self.annotated
        return None if path is None else path.with_name(re.sub(r"(\.(tsv|txt|vcf))?(\.b?gz)?$", "", path.name))

    @property
    def skipped(self) -> Path | None:
        """List of skipped alleles."""
        return self.stem and self.stem.with_name(f"{self.stem.name}.skipped.tsv")

    @property
    def sidecar(self) -> Path | None:
        """What the files are, and their digests."""
        return self.stem and self.stem.with_name(f"{self.stem.name}{SIDECAR_SUFFIX}")

    @property
    def files(self) -> dict[str, Path]:
        """All files but the sidecar, by what they are."""
        named = {"table": self.table, "annotated": self.annotated, "skipped": self.skipped}
        return {name: path for name, path in named.items() if path is not None}

    def refuse_existing(self) -> None:
        """`OutputExistsError` where one is there and may not be replaced."""
        for path in self.files.values():
            refuse_existing(path, self.overwrite)
        if self.sidecar is not None:
            refuse_existing(self.sidecar, self.overwrite)


class _Text(Protocol):
    def write(self, text: str, /) -> object: ...


class _BgzipText(BgzipWriter):
    """Text as bgzip; bytes that are no UTF-8 go through as they came."""

    def write(self, data: str) -> None:  # type: ignore[override]
        super().write(data.encode("utf-8", "surrogateescape"))


def score_variants(
    dataset: Dataset,
    model: LoadedModel,
    request: VariantRequest,
    device: Device,
    vcf: VcfFile,
    outputs: VariantOutputs,
    reporter: Reporter = SILENT,
) -> Survey:
    """Score the variants of a VCF and write what was asked for; all files appear at the end, or none.

    Raises:
        OutputExistsError: an output is there and may not be replaced.
        InputError: the VCF is faulty, or most of its reference alleles are not the genome's.
    """
    outputs.refuse_existing()
    judge = Judge(dataset, model, request.cell)
    found = survey(vcf, judge, dataset.assembly.name)
    rescore = model_rescore(model.members, device, both_strands=request.both_strands)
    columns = [model.index(tf) for tf in request.tfs]
    scorer = VariantScorer(rescore, columns, Layout.of(model))
    with contextlib.ExitStack() as staging:
        for path in outputs.files.values():
            # What killed runs left of it goes, too.
            staging.enter_context(exclusive_lock(path))
        if outputs.sidecar is not None:
            staging.enter_context(exclusive_lock(outputs.sidecar))
            # Staged first, published last: it vouches for the others.
            sidecar = staging.enter_context(publish_file(outputs.sidecar, overwrite=outputs.overwrite))
        staged = {
            name: staging.enter_context(publish_file(path, overwrite=outputs.overwrite))
            for name, path in outputs.files.items()
        }
        with _Files(staged, outputs, model, request) as files:
            files.begin(vcf)
            with reporter.task(f"scoring variants in {request.cell.name}", found.num_variants, "variants") as done:
                for records in score_vcf(vcf, judge, scorer):
                    files.add(records)
                    num = sum(not isinstance(each, str) for record in records for each in record.found)
                    done(num, records[-1].record.chrom)
        if outputs.sidecar is not None:
            body = _about(dataset, model, request, scorer.layout.geometry.window_bp) | _counts(vcf, found)
            body["files"] = {outputs.files[name].name: file_entry(path) for name, path in staged.items()}
            manifest = build_manifest(VARIANT_SCORES, VARIANT_SCORES_FORMAT, body)
            sidecar.write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
            for path in staged.values():
                # A disk may be found full only now; then no file may have been published yet.
                with path.open("rb") as handle:
                    os.fsync(handle.fileno())
    return found


def _about(dataset: Dataset, model: LoadedModel, request: VariantRequest, window_bp: int) -> dict[str, Any]:
    """What made the scores what they are."""
    return {
        "tfs": list(request.tfs),
        **provenance(dataset, model, request.cell, both_strands=request.both_strands),
        "window_bp": window_bp,
        "calibration": {tf: asdict(model.calibration(tf)) for tf in request.tfs},
    }


def _counts(vcf: VcfFile, found: Survey) -> dict[str, Any]:
    digest = None if str(vcf.path) == "-" else sha256_of(vcf.path)
    return {
        "vcf": {"name": vcf.path.name, "sha256": digest},
        "records": found.num_records,
        "alternative_alleles": found.num_alleles,
        "scored": found.num_variants,
        "reference_alleles": {"checked": found.checked, "mismatching": found.mismatching},
        "skipped": dict(found.skipped),
    }


class _Files(contextlib.ExitStack):
    """The files that are being written.

    Args:
        staged: where they are written, by what they are.
        outputs: what they will be called, and the stream that takes the table where it is no file.
    """

    def __init__(
        self,
        staged: Mapping[str, Path],
        outputs: VariantOutputs,
        model: LoadedModel,
        request: VariantRequest,
    ) -> None:
        super().__init__()
        self._tfs = request.tfs
        self._cell = request.cell.name
        self._calibrations = [model.calibration(tf) for tf in request.tfs]
        self._stream = outputs.stream
        opened = {name: self._open(path, outputs.files[name]) for name, path in staged.items()}
        self._annotated, self._skipped = opened.get("annotated"), opened.get("skipped")
        self._table: _Text | None = opened.get("table", outputs.stream)

    def _open(self, path: Path, name: Path) -> _Text:
        if name.suffix in (".gz", ".bgz"):
            return self.enter_context(_BgzipText(path))  # type: ignore[return-value]
        return self.enter_context(path.open("w", encoding="utf-8", errors="surrogateescape", newline="\n"))

    def begin(self, vcf: VcfFile) -> None:
        """The header lines."""
        if self._table:
            self._table.write("\t".join(SCORE_COLUMNS) + "\n")
        if self._skipped:
            self._skipped.write("\t".join(_SKIPPED_COLUMNS) + "\n")
        if self._annotated:
            fields = [field for tf in self._tfs for field in _info_fields(tf, self._cell)]
            self._annotated.write("\n".join(annotated_header(vcf.header, fields)) + "\n")

    def add(self, records: Sequence[ScoredRecord]) -> None:
        """Rows of some records, in order."""
        for scored in records:
            self._add(scored)
        if self._stream:
            self._stream.flush()

    def _add(self, scored: ScoredRecord) -> None:
        record = scored.record
        alts = record.alts or (".",)
        values = [None if isinstance(each, str) else self._values(*each) for each in scored.found]
        where = f"{record.chrom}\t{record.position + 1}\t{record.id}\t{record.ref}"
        for place, alt in enumerate(alts):
            found = scored.found[place] if record.alts else NO_ALT
            if isinstance(found, str):
                if self._skipped:
                    self._skipped.write(f"{where}\t{alt}\t{record.line}\t{found}\n")
            elif self._table:
                for tf, row in zip(self._tfs, values[place] or (), strict=True):
                    self._table.write(f"{where}\t{alt}\t{tf}\t" + "\t".join(f"{each:.6g}" for each in row) + "\n")
        if self._annotated:
            info: dict[str, list[float | None]] = {}
            for t, tf in enumerate(self._tfs):
                for suffix, column in _SUFFIXES.items():
                    info[info_key("EBERT", tf, suffix)] = [None if row is None else row[t][column] for row in values]
            self._annotated.write(annotated_record(record, info) + "\n")

    def _values(self, reference: Floats, alternative: Floats) -> list[tuple[float, ...]]:
        """Of each TF the six numbers of its row."""
        rows: list[tuple[float, ...]] = []
        for t, calibration in enumerate(self._calibrations):
            logits = np.array([reference[t], alternative[t]], dtype=np.float32)
            before, after = logits.tolist()
            own, other = calibration.probabilities(logits).tolist()
            rows.append((before, after, after - before, own, other, other - own))
        return rows


# INFO field -> column of a row of `_values`.
_SUFFIXES: Final = {"REF": 3, "ALT": 4, "DELTA": 5, "DELTA_LOGIT": 2}


def _info_fields(tf: str, cell: str) -> list[InfoField]:
    called = re.sub(r'["\\]', "_", f"{tf} binding in {cell}")
    told = {
        "REF": f"Probability of {called} with the reference allele, best bin that holds the variant",
        "ALT": f"Probability of {called} with the alternative allele, best bin that holds the variant",
        "DELTA": f"Probability of {called}, alternative minus reference",
        "DELTA_LOGIT": f"Logit of {called}, alternative minus reference",
    }
    return [InfoField(info_key("EBERT", tf, suffix), told[suffix]) for suffix in _SUFFIXES]
