"""The files that predictions consist of: their formats, their names, and who may write them."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from ebert_core.artifacts import SIDECAR_SUFFIX, digest_of, exclusive_lock, read_json, refuse_existing
from ebert_core.errors import EbertError, UnknownNameError
from ebert_core.io.predictions import SPREAD_SUFFIX
from ebert_core.io.submissions import submission_name

# format -> name of the file of TF.CELL.
FORMATS: Final = {
    "bigwig": "{}.bw",
    "narrowpeak": "{}.narrowPeak",
    "bedgraph": "{}.bedGraph.gz",
    "dream": "F.{}.tab.gz",
    "npz": "{}.npz",
    "parquet": "{}.parquet",
}
# One file of all TFs, called after all of them.
SHARED_FORMATS: Final = ("npz", "parquet")
DEFAULT_FORMATS: Final = ("bigwig", "narrowpeak")
# What `--min-score` and `--round` apply to.
TRACK_FORMATS: Final = ("bigwig", "bedgraph")
# Of every run, whatever its formats.
_UNSCORED: Final = "{}.unscored.bed"
_LONGEST_NAMES: Final = 80


def parse_formats(names: Sequence[str]) -> tuple[str, ...]:
    """Formats as typed, each once, in the order of `FORMATS`; without a name, the default formats.

    Raises:
        UnknownNameError: one is not there.
        EbertError: one needs a package that is not installed.
    """
    asked = {name.casefold() for name in names}
    for name in names:
        if name.casefold() not in FORMATS:
            raise UnknownNameError("format", name, FORMATS)
    if "parquet" in asked and importlib.util.find_spec("pyarrow") is None:
        raise EbertError("--format parquet needs the package pyarrow", "pip install 'ebert[parquet]', or take npz")
    return tuple(name for name in FORMATS if name in asked) or DEFAULT_FORMATS


@dataclass(frozen=True)
class OutputSettings:
    """What is written, and how much of it.

    Attributes:
        formats: keys of `FORMATS`.
        min_score: bins under it are left out of bigWig and bedGraph; None keeps all.
        round_digits: decimals of the values in bigWig and bedGraph; None keeps them as they are.
        half: matrices hold float16 instead of float32.

    Raises:
        EbertError: a value that makes no sense, or that none of the formats heeds.
    """

    formats: tuple[str, ...] = DEFAULT_FORMATS
    min_score: float | None = None
    round_digits: int | None = None
    half: bool = False

    def __post_init__(self) -> None:
        if self.min_score is not None and not 0 < self.min_score <= 1:
            raise EbertError(f"--min-score {self.min_score:g} is no probability", "name one over 0 and up to 1")
        if self.round_digits is not None and not 1 <= self.round_digits <= 9:
            raise EbertError(f"--round {self.round_digits} decimals", "name 1 to 9 decimals")
        for option, given, heeding in (
            ("--min-score", self.min_score is not None, TRACK_FORMATS),
            ("--round", self.round_digits is not None, TRACK_FORMATS),
            ("--half", self.half, SHARED_FORMATS),
        ):
            if given and not set(heeding) & set(self.formats):
                raise EbertError(
                    f"{option} is for {' and '.join(heeding)}, --format asks for {', '.join(self.formats)}",
                    "leave one of them out",
                )

    def to_json(self) -> dict[str, Any]:
        """For a run's working folder."""
        return asdict(self) | {"formats": list(self.formats)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> OutputSettings:
        """KeyError or TypeError where it is none."""
        return cls(tuple(value["formats"]), value["min_score"], value["round_digits"], value["half"])


@dataclass(frozen=True)
class Outputs:
    """Files of one TF and cell type.

    Attributes:
        files: format, or `unscored` -> path.
        spread: of an ensemble, beside the bigWig.
        sidecar: vouches for them.
        others: files of formats that are not written; where an overwritten sidecar vouched for one, it goes too.
    """

    files: Mapping[str, Path]
    spread: Path
    sidecar: Path
    others: tuple[Path, ...]

    @classmethod
    def named(cls, folder: Path, tf: str, cell: str, formats: Sequence[str] = DEFAULT_FORMATS) -> Outputs:
        """`EbertError` where a submission cannot carry the names."""
        stem = _stem(tf, cell)
        paths = {name: folder / pattern.format(stem) for name, pattern in FORMATS.items()}
        if "dream" in formats and submission_name(paths["dream"]) is None:
            raise EbertError(
                f"a submission F.TF.CELL.tab.gz cannot be called after {tf} and {cell}: their names hold a dot",
                "leave dream out of --format, or name the cell type otherwise with --cell",
            )
        files = {name: paths[name] for name in formats if name not in SHARED_FORMATS}
        return cls(
            files | {"unscored": folder / _UNSCORED.format(stem)},
            folder / f"{stem}{SPREAD_SUFFIX}",
            folder / f"{stem}{SIDECAR_SUFFIX}",
            tuple(path for name, path in paths.items() if name not in formats),
        )

    def left_over(self, *, with_spread: bool) -> list[Path]:
        """Those of `others` that the present sidecar vouches for, and its spread where none is written."""
        try:
            listed = read_json(self.sidecar)["files"]
        except (OSError, EbertError, KeyError, TypeError):
            return []  # none is there, or it is damaged and vouches for nothing
        others = self.others if with_spread else (*self.others, self.spread)
        return [path for path in others if path.name in listed]


@dataclass(frozen=True)
class OutputSet:
    """Files of one run.

    Attributes:
        folder: they lie in it.
        stem: TFS.CELL, the name of the run.
        of_tf: of each TF.
        shared: format -> path of the files that hold all TFs.
    """

    folder: Path
    stem: str
    of_tf: tuple[Outputs, ...]
    shared: Mapping[str, Path]

    @classmethod
    def named(cls, folder: Path, tfs: Sequence[str], cell: str, formats: Sequence[str] = DEFAULT_FORMATS) -> OutputSet:
        """`EbertError` as `Outputs.named`."""
        names = "+".join(tfs)
        if len(names) > _LONGEST_NAMES:
            names = f"{tfs[0]}+{len(tfs) - 1}.{digest_of(list(tfs))[:8]}"
        stem = _stem(names, cell)
        shared = {name: folder / FORMATS[name].format(stem) for name in formats if name in SHARED_FORMATS}
        return cls(folder, stem, tuple(Outputs.named(folder, tf, cell, formats) for tf in tfs), shared)

    @property
    def working(self) -> Path:
        """Where a run keeps what it has scored, until its files are written."""
        return self.folder / f"{self.stem}.partial"

    def shard(self, number: int, of: int) -> Path:
        """Folder of a finished shard."""
        return self.folder / f"{self.stem}.shard-{number}-of-{of}"

    def rank(self, number: int, of: int) -> Path:
        """Folder of what one of several ranks has finished, within `working`."""
        return self.working / f"rank-{number}-of-{of}"

    @property
    def ranks(self) -> list[Path]:
        """What ranks of an unfinished run left, finished or not, also of another number of ranks."""
        return sorted(self.working.glob("rank-*-of-*"))

    def refuse_existing(self, overwrite: bool) -> None:
        """`OutputExistsError` where a file is there and may not be replaced."""
        for output in self.of_tf:
            for path in (*output.files.values(), output.sidecar):
                refuse_existing(path, overwrite)
            refuse_existing(output.spread, overwrite)
        for path in self.shared.values():
            refuse_existing(path, overwrite)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other runs from writing any of the files; what killed runs left of them is removed.

        A file's sidecar stands for it: whoever writes the one writes the other, so that 32 TFs need 32 locks.

        Raises:
            EbertError: another run is writing one, or the folder may not be written to.
        """
        with contextlib.ExitStack() as locks:
            for path in (*self.shared.values(), *(output.sidecar for output in self.of_tf)):
                locks.enter_context(exclusive_lock(path))
            for output in self.of_tf:
                for path in (*output.files.values(), output.spread):
                    with exclusive_lock(path):
                        pass
            yield


def _stem(names: str, cell: str) -> str:
    return f"{names}.{cell}".replace("/", "_")
