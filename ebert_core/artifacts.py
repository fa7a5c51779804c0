"""How files appear: whole or not at all, with a manifest that says what they are and what they were made from.

An artifact is a folder with an `ebert.json` in it, or a file with an `.ebert.json` beside it. The manifest carries the
kind, the format version, the resolved configuration and a SHA-256 digest per file. A reader refuses a foreign kind,
another format version and a broken digest, and names the command that rebuilds the artifact.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from ebert_core import __version__
from ebert_core.errors import BusyError, EbertError, InputError, OutputExistsError

MANIFEST_NAME: Final = "ebert.json"
SIDECAR_SUFFIX: Final = ".ebert.json"
# One number per kind; it grows when a reader of the old format would go wrong.
DATASET_FORMAT: Final = 1
CHECKPOINT_FORMAT: Final = 1
MODEL_FORMAT: Final = 5
_PARTIAL: Final = ".partial-"
_REPLACED: Final = ".replaced"
_CHUNK_BYTES: Final = 1 << 22

# kind -> the command that makes it; what a reader's error tells the user to run.
MADE_BY: Final = {
    "dataset": "ebert prepare",
    "checkpoint": "ebert pretrain",
    "model": "ebert finetune",
    "predictions": "ebert predict",
    "explanation": "ebert explain",
    "variant scores": "ebert variants",
    "report": "ebert evaluate",
}


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file's bytes, read in 4-MiB pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        while chunk := handle.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def digest_of(value: object) -> str:
    """Hex SHA-256 of a JSON value, independent of the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def file_entry(path: Path) -> dict[str, Any]:
    """What a manifest says of one file: its size in bytes and its digest."""
    return {"bytes": path.stat().st_size, "sha256": sha256_of(path)}


def build_manifest(kind: str, format_version: int, body: Mapping[str, Any]) -> dict[str, Any]:
    """A manifest: kind, format version, version of the program, time (UTC), command line, then `body`."""
    program = Path(sys.argv[0]).name  # `python -m ebert_cli` leaves __main__.py there
    return {
        "kind": kind,
        "format_version": format_version,
        "ebert_version": __version__,
        "created_utc": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "command": ["ebert" if program == "__main__.py" else program, *sys.argv[1:]],
        **body,
    }


def check_manifest(manifest: Any, path: Path, kind: str, format_version: int) -> dict[str, Any]:
    """Refuse a manifest of another kind or of a format version that this program does not read."""
    rebuild = f"make it anew with `{MADE_BY[kind]}`"
    if not isinstance(manifest, dict) or "kind" not in manifest:
        raise InputError(path, "is not an ebert manifest", rebuild)
    if manifest["kind"] != kind:
        raise InputError(
            path, f"holds a {manifest['kind']}, expected a {kind}", f"name a {kind}; `{MADE_BY[kind]}` makes one"
        )
    if manifest.get("format_version") != format_version:
        raise InputError(
            path,
            f"has format version {manifest.get('format_version')}, this program reads version {format_version}",
            rebuild,
        )
    return manifest


def read_json(path: Path) -> Any:
    """A JSON file, or an `InputError` that names the line."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise InputError(
            path, f"is not valid JSON ({error.msg})", "the file was changed or damaged; make it anew", line=error.lineno
        ) from None
    except UnicodeDecodeError:
        raise InputError(path, "is not text", "the file was changed or damaged; make it anew") from None


def read_manifest(folder: Path, kind: str, format_version: int) -> dict[str, Any]:
    """The manifest of an artifact folder; `EbertError` where the folder is missing, foreign or of another version."""
    path = folder / MANIFEST_NAME
    if not path.is_file():
        what = "is not there" if not folder.exists() else f"has no {MANIFEST_NAME}, so it is no finished {kind}"
        raise EbertError(f"{kind} {folder} {what}", f"make it with `{MADE_BY[kind]}`, or name another folder")
    return check_manifest(read_json(path), path, kind, format_version)


def check_file(folder: Path, name: str, entry: Mapping[str, Any], kind: str) -> Path:
    """The path of one file of an artifact, after its size and digest were compared with the manifest's."""
    path = folder / name
    rebuild = f"the file was changed or damaged; make it anew with `{MADE_BY[kind]}`"
    if not path.is_file():
        raise InputError(path, f"is missing, though the {kind}'s manifest lists it", rebuild)
    if (size := path.stat().st_size) != entry["bytes"]:
        raise InputError(path, f"has {size:,} bytes, the manifest says {entry['bytes']:,}", rebuild)
    if sha256_of(path) != entry["sha256"]:
        raise InputError(path, "does not match the digest in the manifest", rebuild)
    return path


def write_json(path: Path, value: Any) -> None:
    """Write JSON (two-space indent, one final newline) so that the file appears whole or not at all."""
    with publish_file(path, overwrite=True) as staged:
        staged.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def refuse_existing(target: Path, overwrite: bool, *, kind: str | None = None) -> None:
    """Raise `OutputExistsError` where `target` is there and may not be replaced.

    With a `kind`, what may be overwritten is an artifact of that kind or an empty folder: a mistyped `--output` must
    not cost a folder of something else.
    """
    if target.exists() and not overwrite:
        raise OutputExistsError(target)
    if kind is not None and target.exists() and not _may_give_way(target, kind):
        raise EbertError(f"{target} exists and is not a {kind}", "choose another folder with --output")
    if kind is not None:
        require_place(target)


def require_place(target: Path) -> None:
    """Refuse before hours of work what could not be written after them."""
    if target.is_symlink() and not target.exists():
        raise EbertError(
            f"{target} is a link to {target.readlink()}, which is not there",
            "remove the link, or choose another folder with --output",
        )
    _refuse_blocked(target)
    above = next(folder for folder in target.absolute().parents if folder.exists())
    if not os.access(above, os.W_OK | os.X_OK):
        raise EbertError(f"not allowed to write {target}", "choose a folder that you may write to, with --output")


def _refuse_blocked(target: Path) -> None:
    if blocked := next((folder for folder in target.parents if folder.exists() and not folder.is_dir()), None):
        raise EbertError(f"{blocked} is a file, expected a folder", "choose another folder with --output")


def _may_give_way(target: Path, kind: str) -> bool:
    if not target.is_dir():
        return False
    manifest = target / MANIFEST_NAME
    if not manifest.is_file():
        return not any(target.iterdir())
    try:
        found = read_json(manifest)
    except InputError:
        return True  # a damaged artifact is what --overwrite mends
    return isinstance(found, dict) and found.get("kind") == kind


@contextlib.contextmanager
def publish_file(target: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield a path beside `target` to write to; it becomes `target` when the block ends without an error."""
    refuse_existing(target, overwrite)
    staged = _staging(target)
    with explain_os_errors(target), _parents_of(target):
        try:
            yield staged
            _flush(staged)
            os.replace(staged, target)
        finally:
            _remove(staged)


@contextlib.contextmanager
def publish_folder(target: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield an empty folder beside `target`; it becomes `target` when the block ends without an error.

    With `overwrite` the old folder stays until the new one is complete; then the two change places by two renames.
    """
    refuse_existing(target, overwrite)
    staged = _staging(target)
    replaced = staged.with_name(f"{staged.name}{_REPLACED}")
    with explain_os_errors(target), _parents_of(target):
        try:
            _remove(staged)  # left by a killed run of this process number; in a container numbers come again
            staged.mkdir()
            yield staged
            for path in staged.rglob("*"):
                if path.is_file():
                    _flush(path)
            if target.exists():
                os.replace(target, replaced)
            os.replace(staged, target)
        finally:
            _settle(target, replaced)
            _remove(staged)


@contextlib.contextmanager
def explain_os_errors(target: Path) -> Iterator[None]:
    """Turn the faults of the file system into errors that say what to do; the caller removes the partial output."""
    # What is staged is called by the name that it would have had.
    shown = re.sub(rf"(^|/)\.([^/]+){re.escape(_PARTIAL)}\d+", r"\1\2", str(target))
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise EbertError(
                f"no space left on the device while writing {shown}",
                "free some space or choose another place with --output; nothing finished earlier was lost",
            ) from None
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise EbertError(
                f"not allowed to write {shown}", "choose a folder that you may write to, with --output"
            ) from None
        raise


@contextlib.contextmanager
def exclusive_lock(target: Path) -> Iterator[Path]:
    """Keep other runs from writing `target` meanwhile, by a lock file beside it; the second run is refused at once.

    What killed runs left beside `target` is removed first. Yields `target`.
    """
    path = target.with_name(f".{target.name}.lock")
    with contextlib.ExitStack() as stack:
        with explain_os_errors(target):
            stack.enter_context(_parents_of(target))
            handle = stack.enter_context(path.open("w"))
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # A run that ended between our opening and our locking has removed the file that we hold.
            lost = path.stat().st_ino != os.fstat(handle.fileno()).st_ino
        except (BlockingIOError, FileNotFoundError):
            lost = True
        if lost:
            raise BusyError(f"another run is writing {target}", "wait until it ends, or choose another --output")
        stack.callback(path.unlink, missing_ok=True)
        for left in sorted(target.parent.iterdir()):
            if left.name.startswith(f".{target.name}{_PARTIAL}"):
                _settle(target, left) if left.name.endswith(_REPLACED) else _remove(left)
        yield target


@contextlib.contextmanager
def _parents_of(target: Path) -> Iterator[None]:
    """Make the folders above `target`; those that were made and stay empty are removed at the end."""
    _refuse_blocked(target)
    made = [folder for folder in target.parents if not folder.exists()]
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        for folder in made:
            with contextlib.suppress(OSError):
                folder.rmdir()


def _settle(target: Path, replaced: Path) -> None:
    """Remove the old version of `target`, or put it back where no new one took its place."""
    if replaced.exists() and not target.exists():
        os.replace(replaced, target)
    _remove(replaced)


def _staging(target: Path) -> Path:
    return target.with_name(f".{target.name}{_PARTIAL}{os.getpid()}")


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()
