"""Pictures by content: what is recorded, and when a picture is read again."""

from __future__ import annotations

import hashlib
import json
import os

import pytest

from lab.storage import pictures
from lab.storage.pictures import INDEX_FILE, Picture, PictureIndex, read_picture


@pytest.fixture
def reads(monkeypatch) -> list[str]:
    """Paths of the pictures that are read."""
    genuine, paths = pictures.read_picture, []
    monkeypatch.setattr(pictures, "read_picture", lambda path: paths.append(str(path)) or genuine(path))
    return paths


def test_a_picture_is_its_length_and_digest(tmp_path) -> None:
    content = b"ab" * 1_000_000
    (tmp_path / "a.png").write_bytes(content)
    picture = read_picture(tmp_path / "a.png")
    assert picture == Picture(2_000_000, hashlib.sha256(content).hexdigest())
    assert Picture.recorded(picture.record) == picture
    assert Picture.recorded({"image_file": "a.png"}) is None


def test_a_picture_is_read_once_and_again_when_it_changes(tmp_path, reads) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"old")
    index = PictureIndex(tmp_path)
    before = index.find(str(path))
    index.save()
    assert PictureIndex(tmp_path).find(str(path)) == before
    assert len(reads) == 1
    times = path.stat()
    path.write_bytes(b"new")  # of the same length, and with the same time of modification
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert PictureIndex(tmp_path).find(str(path)) == read_picture(path) != before


def test_the_index_holds_what_several_runs_found_and_is_the_same_for_equal_runs(tmp_path) -> None:
    (tmp_path / "a.png").write_bytes(b"a")
    (tmp_path / "b.png").write_bytes(b"b")
    one, two = PictureIndex(tmp_path), PictureIndex(tmp_path)
    two.find(str(tmp_path / "b.png"))
    two.save()
    one.find(str(tmp_path / "a.png"))
    one.save()
    content = (tmp_path / INDEX_FILE).read_bytes()
    assert [name.rsplit("/", 1)[-1] for name in json.loads(content)] == ["a.png", "b.png"]
    (tmp_path / INDEX_FILE).unlink()
    again = PictureIndex(tmp_path)
    for name in ("b.png", "a.png"):
        again.find(str(tmp_path / name))
    again.save()
    assert (tmp_path / INDEX_FILE).read_bytes() == content


@pytest.mark.parametrize(
    "content", ["", "[]", '{"a": 5}', '{"a": [1]}', '{"a": ["x", 1, 2, 3]}', "[" * 100_000],
    ids=["empty", "list", "number", "short", "text", "deep"],
)  # fmt: skip
def test_a_damaged_index_counts_as_empty(tmp_path, content) -> None:
    (tmp_path / INDEX_FILE).write_text(content)
    (tmp_path / "a.png").write_bytes(b"a")
    assert PictureIndex(tmp_path).find(str(tmp_path / "a.png")) == read_picture(tmp_path / "a.png")


def test_pictures_that_cannot_be_read_are_nothing(tmp_path) -> None:
    index = PictureIndex(tmp_path)
    assert [index.find(name) for name in (str(tmp_path / "none.png"), str(tmp_path), "a\0b")] == [None] * 3


def test_an_index_that_cannot_be_written_is_no_loss(tmp_path, caplog) -> None:
    (tmp_path / "a.png").write_bytes(b"a")
    (tmp_path / "out").write_bytes(b"a file")
    index = PictureIndex(tmp_path / "out" / "deep")
    index.find(str(tmp_path / "a.png"))
    index.save()
    assert "are read again next time" in caplog.text
