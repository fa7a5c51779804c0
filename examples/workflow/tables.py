"""The workflow's table and settings: read, checked, and turned into what the rules ask for. Standard library only."""

from __future__ import annotations

import csv
import difflib
import hashlib
import json
import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COLUMNS = ("tf", "cell", "evaluate", "model")
RULES = ("prepare", "pretrain", "finetune", "predict", "merge", "evaluate")
TRAINING = ("pretrain", "finetune")
# Files of a TF and cell type by format; npz and parquet hold all TFs of a run.
FILES = {"bigwig": "{}.bw", "narrowpeak": "{}.narrowPeak", "bedgraph": "{}.bedGraph.gz", "dream": "F.{}.tab.gz"}
SHARED_FILES = {"npz": "{}.npz", "parquet": "{}.parquet"}
PRESETS = ("tiny", "small", "base", "large")
_INPUTS = ("genome", "states", "chip", "accessibility", "tss", "exclude", "regions")
_SETTINGS = ("samples", "ebert", "inputs", "motifs", "start", "preset", "test_chroms", "predict_chroms", "formats",
             "shards", "max_time", "retries", "options", "resources")  # fmt: skip
# File names are made of these names, and a dot ends the TF's; a comma would be two names to ebert.
_TF, _CELL = re.compile(r"[A-Za-z0-9_-]+"), re.compile(r"[A-Za-z0-9_.() -]*[A-Za-z0-9_)]")
_LONGEST_NAMES = 80


class TableError(Exception):
    """What is wrong with the table or the settings: where, what was found, what was expected."""


@dataclass(frozen=True)
class Row:
    """A pair to predict.

    Attributes:
        tf, cell: as the dataset calls them.
        evaluate: whether the cell type is held out of training and the prediction is scored.
        model: rows of one model are learned together, on one encoder.
        line: in the table, from 1.
    """

    tf: str
    cell: str
    evaluate: bool
    model: str
    line: int


@dataclass(frozen=True)
class Run:
    """What one `ebert predict` scores: TFs of a model in a cell type."""

    model: str
    cell: str
    tfs: tuple[str, ...]

    @property
    def stem(self) -> str:
        """TFS.CELL, what ebert calls the run's files; many TFs are told by the first and a digest."""
        names = "+".join(self.tfs)
        if len(names) > _LONGEST_NAMES:
            digest = hashlib.sha256(json.dumps(list(self.tfs), separators=(",", ":")).encode()).hexdigest()
            names = f"{self.tfs[0]}+{len(self.tfs) - 1}.{digest[:8]}"
        return f"{names}.{self.cell}"

    def files(self, formats: Sequence[str]) -> list[str]:
        """The files in `predictions/` that the run ends with."""
        patterns = [FILES[name] for name in formats if name in FILES] + ["{}.unscored.bed", "{}.ebert.json"]
        names = [pattern.format(f"{tf}.{self.cell}") for tf in self.tfs for pattern in patterns]
        names += [SHARED_FILES[name].format(self.stem) for name in formats if name in SHARED_FILES]
        return [f"predictions/{name}" for name in names]


def read_rows(path: str) -> list[Row]:
    """The table's rows; `TableError` at the first thing that is wrong with it."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise TableError(f"{path}: {error.strerror}; name the table with `samples` in config.yaml") from None
    except UnicodeDecodeError:
        raise TableError(f"{path}: is not text (UTF-8); expected a table with tabs between its columns") from None
    lines = [(number, line) for number, line in enumerate(text.splitlines(), start=1)
             if line.strip() and not line.startswith("#")]  # fmt: skip
    if not lines:
        raise TableError(f"{path}: is empty; expected a header with the columns tf and cell, then a row per pair")
    columns = _read_header(path, *lines[0])
    rows: list[Row] = []
    for number, line in lines[1:]:
        rows.append(_read_row(f"{path}, line {number}", number, columns, next(csv.reader([line], delimiter="\t"))))
        twin = next((row for row in rows[:-1] if (row.tf, row.cell) == (rows[-1].tf, rows[-1].cell)), None)
        if twin:
            raise TableError(f"{path}, line {number}: {twin.tf} in {twin.cell} stands in line {twin.line} already")
    if not rows:
        raise TableError(f"{path}: has a header and no row; add a row for each TF and cell type")
    return rows


def _read_header(path: str, number: int, line: str) -> list[str]:
    columns = [name.strip().casefold() for name in line.split("\t")]
    where = f"{path}, line {number}"
    for needed in COLUMNS[:2]:
        if needed not in columns:
            raise TableError(
                f"{where}: the header has no column {needed} (found: {', '.join(columns)}); expected tf, cell and, if "
                "wanted, evaluate and model, with tabs between them"
            )
    for name in columns:
        if name not in COLUMNS or columns.count(name) > 1:
            what = "stands in the header twice" if name in COLUMNS else f"is unknown; known: {', '.join(COLUMNS)}"
            raise TableError(f"{where}: column {name!r} {what}")
    return columns


def _read_row(where: str, number: int, columns: Sequence[str], cells: Sequence[str]) -> Row:
    if len(cells) != len(columns):
        raise TableError(f"{where}: has {len(cells)} columns, the header has {len(columns)}")
    found = {name: cell.strip() for name, cell in zip(columns, cells, strict=True)}
    for name, pattern, allowed in (
        ("tf", _TF, "letters, digits, - and _"),
        ("cell", _CELL, "letters, digits, space, - _ . ( )"),
        ("model", _TF, "letters, digits, - and _"),
    ):
        if name == "model" and not found.get("model"):
            found["model"] = found["tf"]
        if not pattern.fullmatch(found[name]):
            raise TableError(f"{where}: {name} is {found[name]!r}; expected a name of {allowed}")
    answer = found.get("evaluate", "").casefold()
    if answer not in ("", "yes", "no"):
        raise TableError(f"{where}: evaluate is {found['evaluate']!r}; expected yes or no")
    return Row(found["tf"], found["cell"], answer == "yes", found["model"], number)


def tfs_of(rows: Iterable[Row], model: str) -> list[str]:
    """TFs of a model, in the table's order."""
    return list(dict.fromkeys(row.tf for row in rows if row.model == model))


def held_out(rows: Iterable[Row], model: str) -> list[str]:
    """Cell types whose labels a model must not read."""
    return sorted({row.cell for row in rows if row.model == model and row.evaluate})


def runs(rows: Sequence[Row]) -> list[Run]:
    """The runs of `ebert predict` that a table asks for."""
    return [
        Run(model, cell, tuple(row.tf for row in rows if (row.model, row.cell) == (model, cell)))
        for model, cell in dict.fromkeys((row.model, row.cell) for row in rows)
    ]


def require_known(rows: Iterable[Row], path: str, manifest: str) -> None:
    """`TableError` at the first name that the dataset does not know; a prediction's files bear the dataset's names."""
    dataset = json.loads(Path(manifest).read_text(encoding="utf-8"))
    labels = dataset.get("labels", {})
    cells = {*dataset.get("states", {}), *dataset.get("accessibility", {})}
    for row in rows:
        where = f"{path}, line {row.line}"
        if row.tf not in labels:
            raise TableError(f"{where}: the dataset has no labels of {row.tf!r}; {_nearest(row.tf, labels)}")
        if row.cell not in cells:
            raise TableError(
                f"{where}: the dataset has neither states nor accessibility of {row.cell!r}; "
                f"{_nearest(row.cell, cells, dataset.get('aliases', {}))}"
            )
        if row.evaluate and row.cell not in labels[row.tf]:
            known = ", ".join(sorted(labels[row.tf]))
            raise TableError(f"{where}: evaluate is yes, and {row.tf} has labels in {known} only; expected no")


def write_checked(path: str, files: Iterable[str]) -> None:
    """Remember what the dataset was made from when the table's names were compared with it."""
    Path(path).write_text(json.dumps(_marks(files)), encoding="utf-8")


def is_checked(path: str, files: Iterable[str]) -> bool:
    """Whether the dataset is there and was made from these files as they are now."""
    try:
        return bool(json.loads(Path(path).read_text(encoding="utf-8")) == _marks(files))
    except (OSError, ValueError):
        return False


def _marks(files: Iterable[str]) -> dict[str, list[int]]:
    return {path: [os.stat(path).st_size, os.stat(path).st_mtime_ns] for path in files}


def _nearest(name: str, known: Collection[str], aliases: Mapping[str, str] | None = None) -> str:
    """What a misspelt name may have meant."""
    folded = {each.casefold(): each for each in known}
    meant = (aliases or {}).get(name)
    close = [meant] if meant in known else [folded[each] for each in difflib.get_close_matches(name.casefold(), folded)]
    if close:
        return f"did you mean {close[0]}?"
    return f"it knows {', '.join(sorted(known)) or 'none'}"


@dataclass(frozen=True)
class Settings:
    """config.yaml, checked. Attributes as it explains them; `given` are the inputs that are not left out."""

    samples: str
    given: dict[str, list[str]]
    motifs: str | None
    start: str
    preset: str
    test_chroms: list[str]
    predict_chroms: list[str]
    formats: list[str]
    shards: int
    retries: int
    options: dict[str, str]
    resources: dict[str, dict[str, int]]

    def input_files(self) -> list[str]:
        """Every file that `ebert prepare` is given; of a folder those in it."""
        found = []
        for path in (Path(path) for paths in self.given.values() for path in paths):
            inside = sorted(each for each in path.iterdir() if each.is_file()) if path.is_dir() else [path]
            found += [str(each) for each in inside if not each.name.startswith(".")]
        return found

    def start_files(self) -> list[str]:
        """What fine-tuning starts from."""
        if self.start == "scratch":
            return []
        folder = "pretrained" if self.start == "pretrain" else self.start
        return [f"{folder}/ebert.json", f"{folder}/weights.safetensors"]

    def start_option(self) -> str:
        """The same as an option of `ebert finetune`."""
        if self.start == "scratch":
            return f"--scratch {self.preset}"
        return f"--checkpoint {'pretrained' if self.start == 'pretrain' else self.start}"


def read_settings(config: Mapping[str, Any]) -> Settings:
    """config.yaml's settings; `TableError` at the first thing that is wrong with them."""
    _require_keys("config.yaml", config, _SETTINGS)
    inputs = dict(config["inputs"] or {})
    _require_keys("config.yaml: inputs", inputs, _INPUTS, needed=())
    given = {name: _texts(f"inputs: {name}", inputs[name]) for name in inputs if inputs[name]}
    for needed in ("genome", "chip"):
        if needed not in given:
            raise TableError(f"config.yaml: inputs: {needed} is missing; the road needs a genome and ChIP-seq peaks")
    motifs = config["motifs"] or None
    paths = [(f"inputs: {name}", path) for name, each in given.items() for path in each]
    for name, path in [*paths, *([("motifs", motifs)] if motifs else [])]:
        if not Path(path).exists():
            raise TableError(f"config.yaml: {name}: {path} is not there")
    start = str(config["start"])
    if start not in ("pretrain", "scratch") and not Path(start, "ebert.json").is_file():
        raise TableError(
            f"config.yaml: start is {start!r}; expected pretrain, scratch, or the folder of a checkpoint (which holds "
            "an ebert.json)"
        )
    if config["preset"] not in PRESETS:
        raise TableError(f"config.yaml: preset is {config['preset']!r}; expected one of {', '.join(PRESETS)}")
    formats = _texts("formats", config["formats"])
    for name in formats:
        if name not in FILES | SHARED_FILES:
            raise TableError(f"config.yaml: formats: {name!r} is unknown; known: {', '.join(FILES | SHARED_FILES)}")
    if "bigwig" not in formats:
        raise TableError("config.yaml: formats lacks bigwig, which evaluation reads; add it")
    if not re.fullmatch(r"(\d+d)?(\d+h)?(\d+m)?(\d+s)?", str(config["max_time"])) or not config["max_time"]:
        raise TableError(f"config.yaml: max_time is {config['max_time']!r}; expected a time such as 11h30m")
    _require_keys("config.yaml: options", config["options"], RULES, needed=())
    _require_keys("config.yaml: resources", config["resources"], RULES)
    resources = {}
    for name in RULES:
        asked = config["resources"][name]
        _require_keys(f"config.yaml: resources: {name}", asked, ("threads", "mem_mb", "runtime"))
        resources[name] = {key: _count(f"resources: {name}: {key}", value) for key, value in asked.items()}
    return Settings(
        samples=str(config["samples"]),
        given=given,
        motifs=motifs,
        start=start,
        preset=config["preset"],
        test_chroms=_texts("test_chroms", config["test_chroms"]),
        predict_chroms=_texts("predict_chroms", config["predict_chroms"]),
        formats=formats,
        shards=_count("shards", config["shards"]),
        retries=_count("retries", config["retries"], least=0),
        options={name: config["options"].get(name) or "" for name in RULES},
        resources=resources,
    )


def _require_keys(where: str, found: Any, known: Sequence[str], needed: Sequence[str] | None = None) -> None:
    if not isinstance(found, Mapping):
        raise TableError(f"{where} is {found!r}; expected settings, one per line")
    for key in found:
        if key not in known:
            raise TableError(f"{where}: {key!r} is unknown; {_nearest(str(key), known)}")
    for key in known if needed is None else needed:
        if key not in found:
            raise TableError(f"{where}: {key} is missing")


def _texts(name: str, value: Any) -> list[str]:
    values = value if isinstance(value, list) else [] if value is None else [value]
    for each in values:
        if not isinstance(each, str) or not each.strip():
            raise TableError(f"config.yaml: {name}: {each!r} is no text; expected a name or a list of names")
    return values


def _count(name: str, value: Any, least: int = 1) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise TableError(f"config.yaml: {name} is {value!r}; expected a whole number of {least} or more")
    return value
