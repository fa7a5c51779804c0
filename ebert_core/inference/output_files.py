"""The files that predictions of one TF and cell type consist of, by format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ebert_core.artifacts import SIDECAR_SUFFIX, read_json, refuse_existing
from ebert_core.errors import EbertError, UnknownNameError
from ebert_core.io.submissions import submission_name

# format -> name of the file of TF.CELL.
FORMATS: Final = {"bigwig": "{}.bw", "narrowpeak": "{}.narrowPeak", "dream": "F.{}.tab.gz"}
DEFAULT_FORMATS: Final = ("bigwig", "narrowpeak")


def parse_formats(names: Sequence[str]) -> tuple[str, ...]:
    """Formats as typed, each once, in the order of `FORMATS`; `UnknownNameError` where one is not there.

    Without a name, the default formats.
    """
    asked = {name.casefold() for name in names}
    for name in names:
        if name.casefold() not in FORMATS:
            raise UnknownNameError("format", name, FORMATS)
    return tuple(name for name in FORMATS if name in asked) or DEFAULT_FORMATS


@dataclass(frozen=True)
class Outputs:
    """Files of one TF and cell type.

    Attributes:
        files: format -> path.
        sidecar: vouches for them.
        others: files of formats that are not written; where an overwritten sidecar vouched for one, it goes too.
    """

    files: Mapping[str, Path]
    sidecar: Path
    others: tuple[Path, ...]

    @classmethod
    def named(cls, folder: Path, tf: str, cell: str, formats: Sequence[str] = DEFAULT_FORMATS) -> Outputs:
        """`EbertError` where a submission cannot carry the names."""
        stem = f"{tf}.{cell}".replace("/", "_")
        paths = {name: folder / pattern.format(stem) for name, pattern in FORMATS.items()}
        if "dream" in formats and submission_name(paths["dream"]) is None:
            raise EbertError(
                f"a submission F.TF.CELL.tab.gz cannot be called after {tf} and {cell}: their names hold a dot",
                "leave dream out of --format, or name the cell type otherwise with --cell",
            )
        return cls(
            {name: paths[name] for name in formats},
            folder / f"{stem}{SIDECAR_SUFFIX}",
            tuple(path for name, path in paths.items() if name not in formats),
        )

    def refuse_existing(self, overwrite: bool) -> None:
        for path in (*self.files.values(), self.sidecar):
            refuse_existing(path, overwrite)

    def left_over(self) -> list[Path]:
        """Those of `others` that the present sidecar vouches for."""
        try:
            listed = read_json(self.sidecar)["files"]
        except (OSError, EbertError, KeyError, TypeError):
            return []  # none is there, or it is damaged and vouches for nothing
        return [path for path in self.others if path.name in listed]
