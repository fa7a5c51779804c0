"""Which files are scored against which truth: what a user named, sorted into pairs of TF and cell type."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

from ebert_core.data.dataset import Dataset
from ebert_core.epigenome.cell_types import fold, same_cell
from ebert_core.errors import EbertError, InputError, UnknownNameError
from ebert_core.evaluation.evaluate import Contender
from ebert_core.io.predictions import find_predictions, read_sidecar
from ebert_core.io.submissions import submission_name

PREDICTIONS_FOLDER: Final = Path("predictions")

Pair = tuple[str, str]
Plan = dict[Pair, list[Contender]]


def make_plan(
    paths: Sequence[Path],
    comparisons: Sequence[str],
    tf: str | None,
    cell: str | None,
    dataset: Dataset | None,
    *,
    known_only: bool = True,
) -> Plan:
    """Sort prediction files into pairs.

    Args:
        paths: prediction files, or folders of files that say what they are; none for `predictions/`.
        comparisons: `NAME=FILE` or `TF.CELL:NAME=FILE`.
        tf, cell: what files without a sidecar are of; of those with one, only these are taken.
        dataset: to spell names as it does.
        known_only: whether a name that the dataset lacks is an error; it is none where the truth comes from elsewhere.

    Raises:
        UnknownNameError: `known_only`, and the dataset lacks the name.
        EbertError: no file, a file of unknown TF or cell type, or a comparison that fits no pair.
    """
    if dataset:
        tf = _spelt(dataset.resolve_tf, tf, known_only)
        cell = _spelt(dataset.resolve_cell, cell, known_only)
    plan: Plan = {}
    for path in expand(paths or [PREDICTIONS_FOLDER]):
        pair = pair_of(path, tf, cell)
        if not _same(pair, (tf or pair[0], cell or pair[1])):
            if path in paths:
                raise InputError(
                    path,
                    f"is of {pair[0]} in {pair[1]}, not of {tf or pair[0]} in {cell or pair[1]}",
                    "leave it out, or leave --tf and --cell out: each pair gets its own table",
                )
            continue
        plan.setdefault(_known_as(pair, plan, dataset), []).append(
            Contender("stdin" if str(path) == "-" else path.name, path)
        )
    if not plan and tf and cell and comparisons:
        plan[(tf, cell)] = []
    if not plan:
        wanted = " ".join(name for name in (tf, cell and f"in {cell}") if name)
        where = ", ".join(str(path) for path in paths) or PREDICTIONS_FOLDER
        raise EbertError(
            f"no predictions{f' of {wanted}' if wanted else ''} in {where}",
            "of a folder, submissions and what `ebert predict` made are taken; name other files one by one: "
            "ebert evaluate FILE --tf TF --cell CELL",
        )
    for comparison in comparisons:
        pair, contender = _comparison(comparison, plan)
        plan[pair].append(contender)
    return {pair: _named_apart(contenders) for pair, contenders in plan.items()}


def _known_as(pair: Pair, plan: Plan, dataset: Dataset | None) -> Pair:
    """One spelling per pair: that of the plan, else the dataset's, else the file's."""
    for known in plan:
        if _same(known, pair):
            return known
    if dataset is None:
        return pair
    tf, cell = _spelt(dataset.resolve_tf, pair[0], False), _spelt(dataset.resolve_cell, pair[1], False)
    return tf or pair[0], cell or pair[1]


def expand(paths: Iterable[Path], also: Callable[[Path], object] = submission_name) -> list[Path]:
    """The files themselves, and of each folder its predictions: those with a sidecar, and others that `also` takes."""
    found: list[Path] = []
    for path in paths:
        if not path.is_dir():
            found += [] if path == PREDICTIONS_FOLDER and not path.exists() else [path]
            continue
        described = find_predictions(path)
        beside = {name for each in described for name in (read_sidecar(each) or {"files": ()})["files"]}
        found += [*described, *(each for each in sorted(path.iterdir()) if also(each) and each.name not in beside)]
    return found


def _spelt(resolve: Callable[[str], str], name: str | None, known_only: bool) -> str | None:
    try:
        return resolve(name) if name else name
    except UnknownNameError:
        if known_only:
            raise
        return name


def pair_of(path: Path, tf: str | None = None, cell: str | None = None) -> Pair:
    """The (TF, cell type) of a file: from its sidecar, or a submission's name, else those given.

    Raises:
        InputError: the file is not there, or nothing says what it is of.
    """
    sidecar = read_sidecar(path)
    if sidecar:
        return sidecar["tf"], sidecar["cell"]
    if path.is_file() and (named := submission_name(path)):
        return named[1], named[2]
    if not path.exists() and str(path) != "-":
        raise InputError(path, "is not there", "check the path, or make predictions with `ebert predict`")
    if not tf or not cell:
        raise InputError(path, "does not say which TF and cell type it is of", "say so with --tf and --cell")
    return tf, cell


def _same(a: Pair, b: Pair) -> bool:
    return fold(a[0]) == fold(b[0]) and same_cell(a[1], b[1])


def _comparison(text: str, plan: Plan) -> tuple[Pair, Contender]:
    name, equals, file = text.partition("=")
    if not equals or not name.strip() or not file.strip():
        raise EbertError(f"--compare {text!r} is not NAME=FILE", "for example --compare other=other/CTCF.K562.bw")
    path, pairs = Path(file.strip()), {f"{tf}.{cell}".casefold(): (tf, cell) for tf, cell in plan}
    prefix, colon, rest = name.partition(":")
    if colon and prefix.strip().casefold() in pairs:
        return pairs[prefix.strip().casefold()], Contender(rest.strip(), path, "comparison")
    sidecar = read_sidecar(path)
    if sidecar:
        for pair in plan:
            if _same(pair, (sidecar["tf"], sidecar["cell"])):
                return pair, Contender(name.strip(), path, "comparison")
    if len(plan) > 1 or sidecar:
        raise EbertError(
            f"--compare {text!r} belongs to none of the evaluated pairs",
            f"write TF.CELL:NAME=FILE with one of {', '.join(f'{tf}.{cell}' for tf, cell in plan)}",
        )
    return next(iter(plan)), Contender(name.strip(), path, "comparison")


def _named_apart(contenders: Iterable[Contender]) -> list[Contender]:
    """Files of one name in several folders are called by their whole path."""
    contenders = list(contenders)
    names = [contender.name for contender in contenders]
    return [
        Contender(str(each.path), each.path, each.kind)
        if each.kind == "prediction" and names.count(each.name) > 1
        else each
        for each in contenders
    ]
