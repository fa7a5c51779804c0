"""Files and folders that appear whole or not at all, whatever happens in between."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import subprocess
import sys
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ebert_core import __version__
from ebert_core.artifacts import (
    MADE_BY,
    build_manifest,
    check_file,
    check_manifest,
    digest_of,
    exclusive_lock,
    explain_os_errors,
    file_entry,
    publish_file,
    publish_folder,
    read_json,
    read_manifest,
    refuse_existing,
    sha256_of,
    write_json,
)
from ebert_core.errors import EbertError, InputError, OutputExistsError


class Stop(BaseException):
    """Like a KeyboardInterrupt: no Exception."""


def write_and_fail(path, fault):
    path.write_text("half")
    raise fault


def tree(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


# Digests and manifests


def test_sha256_equals_the_whole_files(tmp_path):
    path = tmp_path / "a"
    content = os.urandom((1 << 22) + 17)  # more than one piece
    path.write_bytes(content)
    assert sha256_of(path) == hashlib.sha256(content).hexdigest()
    assert file_entry(path) == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


JSON = st.recursive(st.none() | st.integers() | st.text(max_size=3), lambda x: st.lists(x, max_size=3), max_leaves=4)


@settings(max_examples=30)
@given(st.dictionaries(st.text(max_size=3), JSON, min_size=2, max_size=4))
def test_a_digest_does_not_depend_on_the_order_of_keys(value):
    assert digest_of(value) == digest_of(dict(reversed(value.items())))
    assert digest_of(value) != digest_of({**value, "one more": 1})


@pytest.mark.parametrize("kind", MADE_BY)
def test_a_manifest_goes_round(tmp_path, kind):
    manifest = build_manifest(kind, 3, {"body": [1, 2]})
    write_json(tmp_path / "ebert.json", manifest)
    assert read_manifest(tmp_path, kind, 3) == manifest
    assert manifest["body"] == [1, 2]
    assert manifest["ebert_version"] == __version__
    with pytest.raises(InputError, match="has format version 3, this program reads version 4") as caught:
        read_manifest(tmp_path, kind, 4)
    assert MADE_BY[kind] in caught.value.hint


def test_a_foreign_manifest(tmp_path):
    write_json(tmp_path / "ebert.json", build_manifest("model", 1, {}))
    with pytest.raises(InputError, match="holds a model, expected a dataset"):
        read_manifest(tmp_path, "dataset", 1)
    for strange in ([], "text", {}, None, {"format_version": 1}):
        with pytest.raises(InputError, match="is not an ebert manifest"):
            check_manifest(strange, tmp_path, "dataset", 1)


def test_a_missing_manifest(tmp_path):
    with pytest.raises(EbertError, match="is not there") as caught:
        read_manifest(tmp_path / "x", "model", 1)
    assert "`ebert finetune`" in caught.value.hint
    with pytest.raises(EbertError, match="no finished model"):
        read_manifest(tmp_path, "model", 1)


def test_broken_json_names_its_line(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{\n"a": 1,\n?}')
    with pytest.raises(InputError) as caught:
        read_json(path)
    assert caught.value.line == 3
    assert caught.value.hint


def test_a_file_is_checked_against_its_entry(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"12345")
    entry = file_entry(path)
    assert check_file(tmp_path, "a.bin", entry, "model") == path
    for content, problem in ((b"12346", "does not match the digest"), (b"1234", "has 4 bytes, the manifest says 5")):
        path.write_bytes(content)
        with pytest.raises(InputError, match=problem) as caught:
            check_file(tmp_path, "a.bin", entry, "model")
        assert "`ebert finetune`" in caught.value.hint
    path.unlink()
    with pytest.raises(InputError, match="is missing"):
        check_file(tmp_path, "a.bin", entry, "model")


# Files


def test_a_file_appears_whole(tmp_path):
    target = tmp_path / "new" / "a.txt"
    with publish_file(target) as staged:
        staged.write_text("half")
        assert not target.exists()
        assert staged.parent == target.parent, "a rename across devices would be a copy"
    assert target.read_text() == "half"
    assert tree(tmp_path) == ["new", "new/a.txt"]


@pytest.mark.parametrize("fault", [Stop(), KeyboardInterrupt(), ValueError("x"), EbertError("x")])
def test_a_failed_file_leaves_nothing(tmp_path, fault):
    with pytest.raises(type(fault)), publish_file(tmp_path / "new" / "deep" / "a.txt") as staged:
        write_and_fail(staged, fault)
    assert tree(tmp_path) == []


def test_a_file_that_nobody_wrote_is_an_error_that_leaves_nothing(tmp_path):
    with pytest.raises(OSError), publish_file(tmp_path / "a.txt"):  # noqa: PT011
        pass
    assert tree(tmp_path) == []


def test_an_existing_file_needs_overwrite(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(OutputExistsError), publish_file(target) as staged:
        staged.write_text("new")
    assert target.read_text() == "old"
    with pytest.raises(Stop), publish_file(target, overwrite=True) as staged:
        write_and_fail(staged, Stop())
    assert target.read_text() == "old"
    with publish_file(target, overwrite=True) as staged:
        staged.write_text("new")
    assert target.read_text() == "new"
    assert tree(tmp_path) == ["a.txt"]


def test_refuse_existing(tmp_path):
    refuse_existing(tmp_path / "missing", overwrite=False)
    refuse_existing(tmp_path, overwrite=True)
    with pytest.raises(OutputExistsError):
        refuse_existing(tmp_path, overwrite=False)


def test_overwriting_is_for_artifacts_of_the_same_kind(tmp_path):
    folder, file = tmp_path / "folder", tmp_path / "file"
    folder.mkdir()
    file.write_text("mine")
    refuse_existing(tmp_path / "missing", overwrite=True, kind="report")
    refuse_existing(folder, overwrite=True, kind="report")
    for content in ("{}", '{"kind": "model"}', "[]"):
        (folder / "ebert.json").write_text(content)
        with pytest.raises(EbertError, match="folder exists and is not a report"):
            refuse_existing(folder, overwrite=True, kind="report")
    for content in ('{"kind": "report"}', '{"kind": "rep'):
        (folder / "ebert.json").write_text(content)
        refuse_existing(folder, overwrite=True, kind="report")
    for other in (tmp_path, file):
        with pytest.raises(EbertError, match="exists and is not a report") as caught:
            refuse_existing(other, overwrite=True, kind="report")
        assert "--output" in caught.value.hint


def test_a_place_that_cannot_be_written_is_refused_at_once(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "gone" / "report")
    with pytest.raises(EbertError, match="file is a file, expected a folder"):
        refuse_existing(tmp_path / "file" / "report", False, kind="report")
    with pytest.raises(EbertError, match=r"link is a link to .*, which is not there"):
        refuse_existing(tmp_path / "link", False, kind="report")
    refuse_existing(tmp_path / "new" / "report", False, kind="report")
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)  # root may write whatever the mode
    with pytest.raises(EbertError, match=r"not allowed to write .*report") as caught:
        refuse_existing(tmp_path / "new" / "report", False, kind="report")
    assert "--output" in caught.value.hint


def test_a_file_where_a_folder_should_be(tmp_path):
    (tmp_path / "a").write_text("mine")
    with pytest.raises(EbertError, match="a is a file, expected a folder"), publish_file(tmp_path / "a" / "b" / "c"):
        pass
    assert (tmp_path / "a").read_text() == "mine"


# Folders


def test_a_folder_appears_whole(tmp_path):
    target = tmp_path / "new" / "a"
    with publish_folder(target) as staged:
        (staged / "sub").mkdir()
        (staged / "sub" / "x").write_text("1")
        assert not target.exists()
    assert tree(tmp_path) == ["new", "new/a", "new/a/sub", "new/a/sub/x"]


@pytest.mark.parametrize("fault", [Stop(), KeyboardInterrupt(), EbertError("x")])
@pytest.mark.parametrize("existing", [False, True])
def test_a_failed_folder_leaves_what_was_there(tmp_path, fault, existing):
    target = tmp_path / "new" / "a"
    if existing:
        target.mkdir(parents=True)
        (target / "old").write_text("old")
    before = tree(tmp_path)
    with pytest.raises(type(fault)), publish_folder(target, overwrite=existing) as staged:
        write_and_fail(staged / "x", fault)
    assert tree(tmp_path) == before


def test_an_existing_folder_needs_overwrite_and_stays_until_the_end(tmp_path):
    target = tmp_path / "a"
    target.mkdir()
    (target / "old").write_text("old")
    with pytest.raises(OutputExistsError), publish_folder(target):
        pass
    with publish_folder(target, overwrite=True) as staged:
        (staged / "new").write_text("new")
        assert (target / "old").read_text() == "old"
    assert tree(tmp_path) == ["a", "a/new"]


def test_an_old_folder_comes_back_when_the_second_rename_fails(tmp_path, monkeypatch):
    target = tmp_path / "a"
    target.mkdir()
    (target / "old").write_text("old")
    replace = os.replace

    def fail_on_publishing(source, destination):
        if destination == target and not str(source).endswith(".replaced"):
            raise Stop
        replace(source, destination)

    monkeypatch.setattr(os, "replace", fail_on_publishing)
    with pytest.raises(Stop), publish_folder(target, overwrite=True) as staged:
        (staged / "new").write_text("new")
    assert tree(tmp_path) == ["a", "a/old"]


def test_a_folder_may_replace_a_file(tmp_path):
    target = tmp_path / "a"
    target.write_text("old")
    with publish_folder(target, overwrite=True) as staged:
        (staged / "new").write_text("new")
    assert tree(tmp_path) == ["a", "a/new"]


# Faults of the file system


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_explained(tmp_path, number):
    with (
        pytest.raises(EbertError, match="no space left on the device while writing") as caught,
        publish_file(tmp_path / "a") as staged,
    ):
        write_and_fail(staged, OSError(number, os.strerror(number)))
    assert str(tmp_path / "a") in caught.value.message
    assert "--output" in caught.value.hint
    assert tree(tmp_path) == []


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EROFS])
def test_a_forbidden_place_is_explained(tmp_path, number):
    with pytest.raises(EbertError, match="not allowed to write") as caught, explain_os_errors(tmp_path):
        raise OSError(number, os.strerror(number))
    assert "--output" in caught.value.hint


def test_other_faults_pass(tmp_path):
    with pytest.raises(FileNotFoundError), explain_os_errors(tmp_path):
        raise FileNotFoundError(errno.ENOENT, "x")


# The lock


def test_a_lock_refuses_the_second_and_leaves_no_file(tmp_path):
    target = tmp_path / "new" / "a"
    with exclusive_lock(target) as held:
        assert held == target
        with pytest.raises(EbertError, match="another run is writing") as caught, exclusive_lock(target):
            pass
        assert str(target) in caught.value.message
        with exclusive_lock(tmp_path / "new" / "b"):
            pass
    assert tree(tmp_path) == []
    with exclusive_lock(target):
        pass


def test_a_lock_of_another_process(tmp_path):
    script = (
        "import sys; from pathlib import Path; from ebert_core.artifacts import exclusive_lock\n"
        "with exclusive_lock(Path(sys.argv[1])):\n    print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "a")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(EbertError, match="another run"), exclusive_lock(tmp_path / "a"):
            pass
        other.kill()
    with exclusive_lock(tmp_path / "a"):
        assert tree(tmp_path) == [".a.lock"], "a lock outlives its file, not its process"


def test_a_lock_file_that_another_run_just_removed_is_no_lock(tmp_path, monkeypatch):
    flock = fcntl.flock

    def too_late(handle, flags):
        (tmp_path / ".a.lock").unlink()
        flock(handle, flags)

    monkeypatch.setattr(fcntl, "flock", too_late)
    with pytest.raises(EbertError, match="another run"), exclusive_lock(tmp_path / "a"):
        pass

    def too_late_and_taken(handle, flags):
        (tmp_path / ".a.lock").unlink()
        (tmp_path / ".a.lock").touch()
        flock(handle, flags)

    monkeypatch.setattr(fcntl, "flock", too_late_and_taken)
    with pytest.raises(EbertError, match="another run"), exclusive_lock(tmp_path / "a"):
        pass
    assert tree(tmp_path) == [".a.lock"], "the other run's"


def test_only_one_of_many_holds_the_lock(tmp_path):
    inside, most, refused = [], [], []

    def run():
        for _ in range(30):
            try:
                with exclusive_lock(tmp_path / "a"):
                    inside.append(1)
                    most.append(len(inside))
                    inside.pop()
            except EbertError:
                refused.append(1)

    threads = [threading.Thread(target=run) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1
    assert len(most) + len(refused) == 180


def test_a_lock_removes_what_killed_runs_left(tmp_path):
    for name in (".a.partial-7", ".a.partial-8.replaced", ".ab.partial-7", "a.partial"):
        (tmp_path / name).mkdir()
    (tmp_path / "a").mkdir()
    (tmp_path / ".a.partial-9").write_text("a file")
    with exclusive_lock(tmp_path / "a"):
        assert tree(tmp_path) == [".a.lock", ".ab.partial-7", "a", "a.partial"]


def test_json_is_readable_by_people(tmp_path):
    write_json(tmp_path / "a.json", {"a": [1]})
    text = (tmp_path / "a.json").read_text()
    assert text == '{\n  "a": [\n    1\n  ]\n}\n'
    assert json.loads(text) == {"a": [1]}
