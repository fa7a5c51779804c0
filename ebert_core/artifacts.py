"""How files appear: whole or not at all, with a manifest that says what they are and what they were made from.

An artifact is a folder with an `ebert.json` in it, or a file with an `.ebert.json` beside it. The manifest carries the
kind, the format version, the resolved configuration and a SHA-256 digest per file. A reader refuses a foreign kind, a
newer format version and a broken digest, and names the command that rebuilds the artifact.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from ebert_core import __version__
from ebert_core.errors import EbertError, InputError, OutputExistsError

MANIFEST_NAME: Final = "ebert.json"
SIDECAR_SUFFIX: Final = ".ebert.json"
_CHUNK_BYTES: Final = 1 << 22

# kind -> the command that makes it; what a reader's error tells the user to run.
MADE_BY: Final = {
    "dataset": "ebert prepare",
    "checkpoint": "ebert pretrain",
    "model": "ebert finetune",
    "predictions": "ebert predict",
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
    return {
        "kind": kind,
        "format_version": format_version,
        "ebert_version": __version__,
        "created_utc": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        **body,
    }


def check_manifest(manifest: Any, path: Path, kind: str, format_version: int) -> dict[str, Any]:
    """Refuse a manifest of another kind or of a format version that this program does not read."""
    rebuild = f"make it anew with `{MADE_BY[kind]}`"
    if not isinstance(manifest, dict) or "kind" not in manifest:
        raise InputError(path, "is not an ebert manifest", rebuild)
    if manifest["kind"] != kind:
        raise InputError(path, f"holds a {manifest['kind']}, expected a {kind}", rebuild)
    if manifest["format_version"] != format_version:
        raise InputError(
            path,
            f"has format version {manifest['format_version']}, this program reads version {format_version}",
            rebuild,
        )
    return manifest


def read_json(path: Path) -> Any:
    """A JSON file, or an `InputError` that names the line."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise InputError(path, f"is not valid JSON ({error.msg})", line=error.lineno) from None


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


def refuse_existing(target: Path, overwrite: bool, *, resume: bool = False) -> None:
    """Raise `OutputExistsError` where `target` is there and may not be replaced."""
    if target.exists() and not overwrite:
        raise OutputExistsError(target, resume=resume)


@contextlib.contextmanager
def publish_file(target: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield a path beside `target` to write to; it becomes `target` when the block ends without an error."""
    refuse_existing(target, overwrite)
    staged = _staging(target)
    try:
        with explain_os_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            yield staged
            _flush(staged)
            os.replace(staged, target)
    finally:
        staged.unlink(missing_ok=True)


@contextlib.contextmanager
def publish_folder(target: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield an empty folder beside `target`; it becomes `target` when the block ends without an error.

    With `overwrite` the old folder stays until the new one is complete; then the two change places by two renames.
    """
    refuse_existing(target, overwrite)
    staged = _staging(target)
    try:
        with explain_os_errors(target):
            staged.mkdir(parents=True)
            yield staged
            for path in staged.rglob("*"):
                if path.is_file():
                    _flush(path)
            replaced = staged.with_name(f"{staged.name}.replaced")
            if target.exists():
                os.replace(target, replaced)
            os.replace(staged, target)
            _remove(replaced)
    finally:
        _remove(staged)


@contextlib.contextmanager
def explain_os_errors(target: Path) -> Iterator[None]:
    """Turn the faults of the file system into errors that say what to do; the caller removes the partial output."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise EbertError(
                f"no space left on the device while writing {target}",
                "free some space or choose another place with --output; nothing finished earlier was lost",
            ) from None
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise EbertError(
                f"not allowed to write {target}", "choose a folder that you may write to, with --output"
            ) from None
        raise


@contextlib.contextmanager
def exclusive_lock(path: Path) -> Iterator[None]:
    """Hold `path` as a lock file, so that two runs cannot write the same artifact; the second is refused at once."""
    with explain_os_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = path.open("w")
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise EbertError(
                f"another run is writing {path.parent}", "wait until it ends, or choose another --output"
            ) from None
        yield


def _staging(target: Path) -> Path:
    return target.with_name(f".{target.name}.partial-{os.getpid()}")


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
