"""Reading text: strict, in pieces as in one, and clear about what it cannot read."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from charrnn import sources as module
from charrnn.corpus import prepare
from charrnn.errors import CharRNNError, DataError, UsageError
from charrnn.sources import Source
from charrnn.text import Text, open_text

ODD = "Người đẹp\r\nmột\u0301 \U0001f469\u200d\U0001f680\n\u05e9\u05b8\u05dc\0\u2028end"


def whole(text: Text) -> str:
    return "".join(text.pieces())


def refusal(*paths: str | Path, **options: str) -> str:
    with pytest.raises(CharRNNError) as refused:
        open_text(paths, **options)
    assert refused.value.exit_code == 2 and "\n" not in str(refused.value)
    return str(refused.value)


def stdin(monkeypatch: pytest.MonkeyPatch, raw: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(raw)))


@given(content=st.text(min_size=1, max_size=60), block=st.integers(1, 9), size=st.integers(1, 9), data=st.data())
@settings(max_examples=200, deadline=None)
def test_any_range_in_any_pieces_is_that_of_the_whole(tmp_path_factory: pytest.TempPathFactory, content: str, block: int, size: int,
                                                      data: st.DataObject) -> None:
    content = "x" + content  # which may begin with what looks like a byte order mark
    path = tmp_path_factory.mktemp("text") / "a.txt"
    path.write_bytes(content.encode())
    start = data.draw(st.integers(0, len(content)))
    stop = data.draw(st.one_of(st.none(), st.integers(0, len(content) + 2)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK", block)
        text = open_text([path])
        pieces = list(text.pieces(size, start, stop))
    assert "".join(pieces) == content[start:stop] and all(len(piece) == size for piece in pieces[:-1])
    assert not pieces or 0 < len(pieces[-1]) <= size
    assert (text.characters, text.bytes) == (len(content), len(content.encode()))
    assert text.digest == hashlib.sha256(content.encode()).hexdigest()


def test_line_ends_and_rare_characters_are_kept(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(ODD.encode())
    text = open_text([tmp_path / "a.txt"])
    assert whole(text) == ODD and text.notes == [] and text.name == "a"


@pytest.mark.parametrize("block", [1, 3, 1 << 20])
def test_one_byte_order_mark_of_each_file_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(module, "BLOCK", block)
    one, two = tmp_path / "one.txt", tmp_path / "two.txt"
    one.write_bytes(b"\xef\xbb\xbf\xef\xbb\xbfab")
    two.write_bytes(b"\xef\xbb\xbfc")
    for encoding in ("utf-8", "UTF8", "utf-8-sig"):
        text = open_text([one, two], encoding=encoding)
        assert whole(text) == "\ufeffabc" and (text.characters, text.bytes) == (4, 6)
        assert len(text.notes) == 2 and str(one) in text.notes[0] and "byte order mark" in text.notes[0]
        assert text.digest == hashlib.sha256(one.read_bytes() + two.read_bytes()).hexdigest()
    assert whole(text) == "\ufeffabc" and len(text.notes) == 2  # reading again says nothing again


def test_folders_are_read_in_order(tmp_path: Path) -> None:
    for name in ("b.txt", "a/z.txt", "a/b/c.TXT", "a.b.txt", "no.md"):
        path = tmp_path / "My texts & more" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"<{name}>", encoding="utf-8")
    text = open_text([tmp_path / "My texts & more"])
    assert whole(text) == "<a/b/c.TXT><a/z.txt><a.b.txt><b.txt>"
    assert text.name == "My_texts_more"


@pytest.mark.parametrize(("path", "name"), [("a/.hidden.txt", "hidden"), ("x/Truyện Kiều.txt", "Truyện_Kiều"), ("a.b.gz", "a"),
                                            ("-", "stdin"), ("  .txt", "text"), ("..x\x1b[1m.txt", "x_1m"), ("y" * 90, "y" * 48)])
def test_names_are_safe_for_a_folder(path: str, name: str) -> None:
    assert module.name_of(path) == name


def test_standard_input_can_be_read_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    stdin(monkeypatch, b"\xef\xbb\xbf" + ODD.encode())
    text = open_text(["-"])
    assert whole(text) == whole(text) == ODD and text.name == "stdin" and "standard input" in text.notes[0]
    first, second = text.pieces(3), text.pieces(3)
    assert [next(first), next(second), next(first)] == [ODD[:3], ODD[:3], ODD[3:6]]
    stdin(monkeypatch, b"")
    assert "standard input: empty" in refusal("-")
    monkeypatch.setattr(sys, "stdin", None)
    assert "closed" in refusal("-")
    assert "once" in refusal("-", "-")


@pytest.mark.parametrize("block", [1, 5, 1 << 20])
def test_bytes_that_are_not_utf8_are_placed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(module, "BLOCK", block)
    path = tmp_path / "a.txt"
    cases = ((b"\xef\xbb\xbfab\nc\n\xc3\xa9\xff\nxyz", 3, 10), (b"abc\xe1\xbb", 1, 3), (b"\xed\xa0\x80", 1, 0), (b"\n\n\xc3\n", 3, 2))
    for raw, line, offset in cases:
        path.write_bytes(raw)
        said = refusal(path)
        assert f"{path}: not UTF-8 at line {line}, offset {offset} " in said and "--errors replace" in said
        assert whole(open_text([path], errors="replace")) == raw.decode("utf-8-sig", "replace")


def test_other_encodings(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    for encoding in ("utf-16", "utf-32", "utf-16-le", "gb18030", "utf-7"):
        path.write_bytes(ODD.encode(encoding))
        assert whole(open_text([path], encoding=encoding)) == ODD
        if encoding in ("utf-16", "utf-32"):
            assert f"--encoding {encoding}" in refusal(path)
    path.write_bytes("é".encode("cp1252"))
    assert whole(open_text([path], encoding="cp1252")) == "é"
    path.write_bytes(b"ab\nc\x81")
    assert "not CP1252 at line 2, offset 4" in refusal(path, encoding="cp1252")
    path.write_bytes(rb"\ud800")
    assert "surrogate" in refusal(path, encoding="unicode_escape")
    for encoding in ("rot13", "base64", "nonsense", "undefined", "\0", ""):
        with pytest.raises(UsageError, match="not an encoding"):
            open_text([path], encoding=encoding)
    with pytest.raises(UsageError, match="strict, replace, ignore"):
        open_text([path], errors="surrogateescape")


def test_what_is_no_text_is_refused_in_one_line(tmp_path: Path) -> None:
    assert "no such file" in refusal(tmp_path / "missing.txt")
    assert "without a .txt" in refusal(tmp_path)
    path = tmp_path / "a.txt"
    for nothing in (b"", b"\xef\xbb\xbf"):
        path.write_bytes(nothing)
        assert f"{path}: empty" in refusal(path)
    path.write_bytes(b"\x7fELF\0\0\xff\xfe")
    assert "looks like a binary file" in refusal(path)
    path.write_bytes(b"a\0b")
    assert whole(open_text([path])) == "a\0b"
    fifo = tmp_path / "pipe"
    os.mkfifo(fifo)
    assert "standard input" in refusal(fifo)
    assert "not a regular file" in refusal("/dev/zero")
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    refusal(loop)
    refusal("a\0b")
    refusal("x" * 5000)
    refusal()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("x", encoding="utf-8")
    path.chmod(0)
    assert "cannot be read: Permission denied" in refusal(path)


def test_a_text_that_changes_while_it_is_used_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"abcdef")
    text = open_text([path])
    state = path.stat()
    for other in (b"abc", b"ABCDEF"):
        path.write_bytes(other)
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
        with pytest.raises(DataError, match="changed"):
            whole(text)
    path.unlink()
    with pytest.raises(DataError, match="No such file"):
        whole(text)


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_text_that_changes_while_it_is_read_is_never_taken_for_what_it_was(pack, tmp_path: Path) -> None:
    """Not even in its last pass, whose tokens would be found under the digest of what it was."""
    path, content = tmp_path / "a.txt", "".join(map(str, range(50_000))).encode()
    path.write_bytes(pack(content))
    text, cache = open_text([path]), tmp_path / "cache"
    pieces = text.pieces(1000)
    next(pieces)
    state, packed = path.stat(), path.read_bytes()
    with open(path, "r+b") as file:  # as long as before
        file.write(packed)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    with pytest.raises(DataError, match="was changed while it was being read"):
        list(pieces)
    with pytest.raises(DataError, match="changed"):
        prepare(text, level="byte", cache=cache)
    text = open_text([path])
    same = Source._same
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Source, "_same", lambda source, status: (same(source, status), os.utime(path, ns=(0, 0)))[0])
        with pytest.raises(DataError, match="changed"):
            prepare(text, level="byte", cache=cache)
    assert not list(cache.iterdir())


def test_tiny_shakespeare() -> None:
    path = Path(os.environ.get("CHARRNN_CORPORA") or Path(__file__).parents[2] / "shared" / "corpora") / "tiny_shakespeare.txt"
    if not path.is_file():
        pytest.skip("tiny_shakespeare.txt is not there: set CHARRNN_CORPORA to a folder that holds it")
    text = open_text([path])
    assert text.digest == "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
    assert text.characters == text.bytes == 1_115_394 and text.name == "tiny_shakespeare"


def test_a_file_full_of_nul_bytes_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "zeros.txt"
    path.write_bytes(bytes(5000))
    assert "binary" in refusal(path)
    path.write_bytes("plain text without a mark".encode("utf-16-le"))
    assert "utf-16" in refusal(path)
    path.write_text("a NUL \0 here and there is text", encoding="utf-8")
    assert whole(open_text([path])) == "a NUL \0 here and there is text"
