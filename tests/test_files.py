"""A file or a folder is there whole or not at all, and nothing is left beside it."""

import os
from pathlib import Path

import pytest

from rdlib import files
from rdlib.files import content_hash, documents, sha256, whole, write_whole

ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, appendix B.1


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_file_is_written_and_replaced(tmp_path):
    write_whole(tmp_path / "new" / "a.txt", "é")
    assert contents(tmp_path) == {"new/a.txt": "é".encode()}
    write_whole(tmp_path / "new" / "a.txt", b"\x00")
    assert contents(tmp_path) == {"new/a.txt": b"\x00"}


def test_a_file_may_be_read_by_whom_any_other_file_may_be(tmp_path):
    (tmp_path / "plain").write_text("")
    write_whole(tmp_path / "whole", "")
    assert (tmp_path / "whole").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failure_leaves_what_was_there(tmp_path, monkeypatch, step):
    write_whole(tmp_path / "a", "old")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(OSError, match="a cannot be written: No space left on device"):
        write_whole(tmp_path / "a", "new")
    assert list(tmp_path.iterdir()) == [tmp_path / "a"] and contents(tmp_path) == {"a": b"old"}


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_a_folder_is_there_whole_or_not_at_all(tmp_path, error):
    with pytest.raises(error), whole(tmp_path / "folder") as unfinished:
        unfinished.mkdir()
        (unfinished / "half").write_text("half")
        raise error
    assert not list(tmp_path.iterdir())
    with whole(tmp_path / "folder") as unfinished:
        (unfinished / "inner").mkdir(parents=True)
        (unfinished / "inner" / "one").write_text("1")
        assert not (tmp_path / "folder").exists()
    assert contents(tmp_path) == {"folder/inner/one": b"1"}


def test_a_folder_that_is_not_empty_is_not_replaced(tmp_path):
    write_whole(tmp_path / "folder" / "mine", "1")
    with pytest.raises(OSError), whole(tmp_path / "folder") as unfinished:
        unfinished.mkdir()
    assert contents(tmp_path) == {"folder/mine": b"1"}


def test_a_file_has_the_hash_of_its_bytes(tmp_path):
    write_whole(tmp_path / "abc", "abc")
    assert sha256(tmp_path / "abc") == sha256(b"abc") == ABC


def test_a_large_file_is_read_once(tmp_path, monkeypatch):
    """As long as its path, size and time stay; also in another process, and where the cache cannot be written."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    read, hash_of = [], files._hash_of
    monkeypatch.setattr(files, "_hash_of", lambda paths: read.append(paths) or hash_of(paths))
    monkeypatch.setattr(files, "LARGE", 3)
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text("ab")
    two.write_text("c")
    assert [content_hash(one, two) for _ in range(3)] == [ABC] * 3 and len(read) == 1
    os.utime(two, (0, 0))
    assert content_hash(one, two) == ABC and len(read) == 2
    two.write_text("d")
    assert content_hash(one, two) == sha256(b"abd") and len(read) == 3
    for entry in (tmp_path / "cache").rglob("*"):
        if entry.is_file():
            entry.write_text("damaged")
    assert content_hash(one, two) == sha256(b"abd") and len(read) == 4
    assert [content_hash(one) for _ in range(2)] == [sha256(b"ab")] * 2 and len(read) == 6, "a small one"
    monkeypatch.setenv("XDG_CACHE_HOME", str(one / "not a folder"))
    assert content_hash(one, two) == sha256(b"abd")


def test_documents_are_divided_by_their_mark():
    assert documents("\none\n<|endoftext|>\n two <|endoftext|><|endoftext|>\n") == ["one", "two"]
    assert documents(" \n") == []
