"""Files are written whole or not at all, and what cannot be written is said in one line."""

import errno
import json
import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

from madtp.errors import InputError
from madtp.files import (
    append_line,
    atomic_path,
    atomic_write,
    check_folder,
    check_writable,
    claim_folder,
    claimed,
    locked,
    write_json,
)
from small import small_disk


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_writes_text_and_bytes_and_makes_the_folder(tmp_path: Path) -> None:
    atomic_write(tmp_path / "new" / "a.txt", "τ")
    atomic_write(tmp_path / "new" / "b.bin", b"\x00\xff")
    assert (tmp_path / "new" / "a.txt").read_bytes() == b"\xcf\x84"
    assert (tmp_path / "new" / "b.bin").read_bytes() == b"\x00\xff"
    assert names(tmp_path / "new") == ["a.txt", "b.bin"]


def test_json_is_readable_by_people_and_programs(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"name": "τ", "n": [2, 3]})
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads(text) == {"name": "τ", "n": [2, 3]}
    assert '"name": "τ"' in text
    assert text.endswith("}\n")


def test_permissions_are_those_of_any_new_file(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        atomic_write(tmp_path / "a", "x")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


def test_a_failure_half_way_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    atomic_write(target, "old")

    def write_half() -> None:
        with atomic_path(target) as temporary:
            temporary.write_text("half")
            assert target.read_text() == "old"
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert target.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_a_full_disk_is_said_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    atomic_write(tmp_path / "a.txt", "old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError) as caught:
        atomic_write(tmp_path / "a.txt", "new")
    assert (
        str(caught.value)
        == f"{tmp_path / 'a.txt'}: cannot write: No space left on device; free the disk or choose another --out"
    )
    assert (tmp_path / "a.txt").read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_a_file_in_the_way_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match=r"a\.txt: cannot write: .*; choose another --out$"):
        atomic_write(tmp_path / "file" / "a.txt", "x")


def test_a_folder_in_the_way_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(InputError, match="cannot write: Is a directory"):
        atomic_write(tmp_path / "a", "x")
    assert names(tmp_path) == ["a"]


def test_failures_that_are_not_about_the_target_stay_what_they_are(tmp_path: Path) -> None:
    def read_another() -> None:
        with atomic_path(tmp_path / "a") as temporary:
            temporary.write_bytes((tmp_path / "missing").read_bytes())

    def encode() -> None:
        with atomic_path(tmp_path / "a"):
            raise OSError("cannot write mode RGBA as JPEG")

    with pytest.raises(FileNotFoundError, match="missing"):
        read_another()
    with pytest.raises(OSError, match=r"^cannot write mode RGBA as JPEG$"):
        encode()
    assert names(tmp_path) == []


def test_claim_makes_a_folder_and_takes_an_empty_one(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "one"
    assert claim_folder(folder) == folder
    assert folder.is_dir()
    assert claim_folder(str(folder)) == folder


def test_claim_leaves_what_another_run_wrote(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text("{}")
    with pytest.raises(InputError, match="holds another run; choose another --out or add --overwrite"):
        claim_folder(tmp_path)
    claim_folder(tmp_path, overwrite=True)
    assert names(tmp_path) == ["report.json"]


@pytest.mark.parametrize(
    ("below", "says"),
    [("file", "is a file, not a folder"), ("file/run", "cannot be made"), ("x" * 300, "cannot be made")],
)
def test_claim_says_what_stands_in_the_way(tmp_path: Path, below: str, says: str) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match=f"{says}.*; choose another --out$"):
        claim_folder(tmp_path / below, overwrite=True)


def test_claim_finds_a_read_only_folder_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # the superuser, as in containers, may write anywhere
    with pytest.raises(InputError, match="cannot be written; choose another --out"):
        claim_folder(tmp_path)


@pytest.mark.parametrize("there", [{}, {"config.json": "1", "mine.txt": "2"}])
def test_a_claim_that_fails_leaves_what_was_there(tmp_path: Path, there: dict[str, str]) -> None:
    out = tmp_path / "out"
    for name, text in there.items():
        atomic_write(out / name, text)

    def fail() -> None:
        with claimed(out, True, "checkpoint.pt"):
            assert not (out / "config.json").exists()
            atomic_write(out / "run.json", "3")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert names(tmp_path) == (["out"] if there else [])
    assert not there or {p.name: p.read_text() for p in out.iterdir()} == there


@pytest.mark.parametrize("fails", [False, True])
def test_a_claim_that_stands_replaces_the_run_and_nothing_else(tmp_path: Path, fails: bool) -> None:
    out = tmp_path / "out"
    for name in ("log.jsonl", "model.safetensors", "thesis.tex"):
        atomic_write(out / name, "1")
    (out / "photos").mkdir()
    with pytest.raises(KeyboardInterrupt) if fails else nullcontext(), claimed(out, True, "checkpoint.pt"):
        atomic_write(out / "checkpoint.pt", "2")
        if fails:
            raise KeyboardInterrupt
    assert names(out) == ["checkpoint.pt", "photos", "thesis.tex"] and names(tmp_path) == ["out"]


def test_a_run_that_cannot_come_back_is_not_thrown_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    atomic_write(out / "config.json", "1")

    def fail() -> None:
        with claimed(out, True, "checkpoint.pt"):
            monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(errno.EIO, "broken disk")))
            raise KeyboardInterrupt

    with pytest.raises(OSError, match="broken disk"):
        fail()
    (left,) = out.glob(".*.old/config.json")
    assert left.read_text() == "1"


def test_a_claim_without_overwrite_touches_nothing(tmp_path: Path) -> None:
    atomic_write(tmp_path / "out" / "old", "1")
    with pytest.raises(InputError, match="holds another run"), claimed(tmp_path / "out", False, "proof"):
        pytest.fail("the block must not run")
    assert names(tmp_path / "out") == ["old"]


def test_a_place_to_write_is_tried_beforehand(tmp_path: Path) -> None:
    check_writable(tmp_path / "new" / "file.json")
    assert list((tmp_path / "new").iterdir()) == []
    with pytest.raises(InputError, match="is a folder; name a file in it"):
        check_writable(tmp_path)
    (tmp_path / "file").write_text("kept")
    with pytest.raises(InputError, match="cannot write: "):
        check_writable(tmp_path / "file" / "below.json")
    check_writable(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "kept"


def test_a_folder_is_locked_for_others_until_its_process_ends(tmp_path: Path) -> None:
    code = f"from madtp.files import locked\nwith locked({str(tmp_path)!r}):\n print(1, flush=True)\n input()"
    other = subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1] / "src")},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert other.stdin is not None and other.stdout is not None
    try:
        assert other.stdout.readline() == b"1\n"
        check_folder(tmp_path)  # a lock is no run
        with pytest.raises(InputError, match=rf"another run writes there \(process {other.pid} on "), locked(tmp_path):
            pass
        with pytest.raises(InputError, match="another run"), claimed(tmp_path, True, "checkpoint.pt"):
            pass
    finally:
        other.kill()
        other.wait()
        other.stdout.close()
        other.stdin.close()
    with locked(tmp_path):
        assert names(tmp_path) == [".lock"]
    assert names(tmp_path) == []


def test_a_lock_that_cannot_say_whose_it_is_is_one_all_the_same(tmp_path: Path) -> None:
    with small_disk(0), locked(tmp_path):
        assert (tmp_path / ".lock").read_bytes() == b""
        with pytest.raises(InputError, match=r"another run writes there \(unnamed\)"), locked(tmp_path):
            pass
    assert names(tmp_path) == []


def test_lines_are_added_whole(tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    append_line(file, {"a": 1.5, "b": float("nan")})
    with open(file, "a") as opened:
        opened.write('{"half')
    append_line(file, {"c": "τ"})
    assert file.read_text(encoding="utf-8").splitlines() == ['{"a": 1.5, "b": null}', '{"half', '{"c": "τ"}']
    with pytest.raises(InputError, match="cannot write"):
        append_line(tmp_path, {})
