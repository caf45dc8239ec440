"""gzip and zstd: the same text as without, in any pieces; nothing damaged is taken for whole, and nothing small becomes large in memory."""

from __future__ import annotations

import gzip
import random
import sys
import time
import tracemalloc
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from charrnn import compression, novelty
from charrnn.compression import unpacked
from charrnn.corpus import prepare
from charrnn.errors import CharRNNError
from charrnn.sources import name_of
from charrnn.text import open_text

zstd = pytest.importorskip("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")

CHECKED = {zstd.CompressionParameter.checksum_flag: 1}  # as the command zstd does
PACKERS = {".gz": lambda data: gzip.compress(data, mtime=0), ".zst": lambda data: zstd.compress(data, options=CHECKED)}
PROSE = "".join(f"{number * number % 997} lines, Người đẹp\r\n" for number in range(3000)).encode()
SKIPPED = b"\x50\x2a\x4d\x18\x04\0\0\0abcd"  # a frame of zstd that holds nothing of the text


def in_blocks(data: bytes, size: int) -> list[bytes]:
    return [data[place : place + size] for place in range(0, len(data), size)]


@pytest.mark.parametrize("suffix", PACKERS)
@given(parts=st.lists(st.binary(max_size=3000), min_size=1, max_size=4), size=st.integers(1, 700), most=st.integers(1, 5000),
       taken=st.integers(1, 50))
@settings(max_examples=60, deadline=None)
def test_members_in_any_pieces_are_one_text(suffix: str, parts: list[bytes], size: int, most: int, taken: int) -> None:
    packed = b"".join(PACKERS[suffix](part * 5) for part in parts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compression, "BLOCK", most)
        patch.setattr(compression, "SLICE", taken)
        found = list(unpacked(iter(in_blocks(packed, size))))
    assert b"".join(found) == b"".join(part * 5 for part in parts) and all(0 < len(piece) <= most for piece in found)


def test_padding_and_frames_to_skip_are_no_text() -> None:
    assert b"".join(unpacked(iter([PACKERS[".gz"](b"one") + bytes(700) + PACKERS[".gz"](b"two") + bytes(9)]))) == b"onetwo"
    assert b"".join(unpacked(iter([SKIPPED + PACKERS[".zst"](b"one") + SKIPPED + PACKERS[".zst"](b"two")]))) == b"onetwo"


@given(data=st.binary(max_size=40), size=st.integers(1, 41))
@settings(max_examples=60, deadline=None)
def test_all_else_is_as_it_is(data: bytes, size: int) -> None:
    if not compression.kind_of(data):
        assert b"".join(unpacked(iter(in_blocks(data, size)))) == data


@pytest.mark.parametrize("suffix", PACKERS)
def test_a_packed_text_is_the_text(suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, packed, other = tmp_path / "book.txt", tmp_path / f"book.txt{suffix}", tmp_path / "named.otherwise"
    plain.write_bytes(b"\xef\xbb\xbf" + PROSE)
    half = len(PROSE) // 2 + 1  # within a character
    packed.write_bytes(PACKERS[suffix](b"\xef\xbb\xbf" + PROSE[:half]) + PACKERS[suffix](PROSE[half:]))
    other.write_bytes(packed.read_bytes())
    one, two, three = open_text([plain]), open_text([packed]), open_text([other])
    for text in (two, three):
        assert (text.digest, text.characters, text.bytes) == (one.digest, one.characters, one.bytes)
        assert "".join(text.pieces(start=1000, stop=5000)) == "".join(one.pieces(start=1000, stop=5000))
    assert two.name == one.name == "book" and "byte order mark" in two.notes[0]
    cache = tmp_path / "cache"
    prepare(one, level="char", cache=cache)
    monkeypatch.setattr("charrnn.corpus.write", lambda *_: pytest.fail("the tokens are there already"))
    prepare(two, level="char", cache=cache)
    with open(packed, "rb") as stream:
        monkeypatch.setattr(sys, "stdin", type("Standard", (), {"buffer": stream}))
        assert open_text(["-"]).digest == one.digest


def test_a_folder_packed_is_the_folder(tmp_path: Path) -> None:
    texts = {"a.txt": b"a", "a.txt-old.TXT": b"old", "b/c.txt": b"c"}
    for folder, pack, suffix in (("plain", bytes, ""), ("gz", PACKERS[".gz"], ".gz"), ("zst", PACKERS[".zst"], ".ZST")):
        for name, content in texts.items():
            path = tmp_path / folder / (name + suffix)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(pack(content))
        assert "".join(open_text([tmp_path / folder]).pieces()) == "aoldc" and not open_text([tmp_path / folder]).notes
    (tmp_path / "plain" / "a.txt.gz").write_bytes(PACKERS[".gz"](b"a"))
    (tmp_path / "plain" / "notes.gz").write_bytes(PACKERS[".gz"](b"not a .txt"))
    text = open_text([tmp_path / "plain"])
    assert "".join(text.pieces()) == "aoldc" and len(text.notes) == 1 and "a.txt.gz was left out" in text.notes[0]


def test_names() -> None:
    names = {"x/book.txt.gz": "book", "book.TXT.zst": "book", "book.gz": "book", ".gz": "text", "a.b.txt.gz": "a.b"}
    assert {path: name_of(path) for path in names} == names


def refused(path: Path) -> str:
    with pytest.raises(CharRNNError) as error:
        open_text([path])
    assert error.value.exit_code == 2 and "\n" not in str(error.value) and str(path) in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("suffix", PACKERS)
def test_what_is_damaged_or_cut_short_is_refused(suffix: str, tmp_path: Path) -> None:
    path, packed, chance = tmp_path / f"book.txt{suffix}", PACKERS[suffix](PROSE), random.Random(1)
    for cut in sorted({len(packed) - 1, len(packed) - 5, 30, *(chance.randrange(16, len(packed)) for _ in range(20))}):
        path.write_bytes(packed[:cut])
        assert "cut short" in refused(path)
    path.write_bytes(packed + packed[:-3])
    assert "cut short" in refused(path)
    path.write_bytes(packed + b"what is this")
    assert "damaged" in refused(path)
    for _ in range(100):
        place = chance.randrange(16, len(packed))
        path.write_bytes(packed[:place] + bytes([packed[place] ^ (1 << chance.randrange(8))]) + packed[place + 1 :])
        refused(path)


def test_what_is_wrong_in_the_text_is_placed_as_if_it_were_not_packed(tmp_path: Path) -> None:
    (tmp_path / "book.txt.gz").write_bytes(PACKERS[".gz"](b"ab\nc\xff"))
    assert "line 2, offset 4" in refused(tmp_path / "book.txt.gz")
    (tmp_path / "empty.txt.gz").write_bytes(PACKERS[".gz"](b""))
    assert "empty" in refused(tmp_path / "empty.txt.gz")


def bomb(suffix: str, size: int) -> bytes:
    """`size` MB of line ends, packed."""
    member = PACKERS[suffix](b"\n" * 1_000_000)
    packer = zlib.compressobj(9, zlib.DEFLATED, 31) if suffix == ".gz" else zstd.ZstdCompressor()
    return member + b"".join(packer.compress(b"\n" * 1_000_000) for _ in range(size - 1)) + packer.flush()


@pytest.mark.parametrize("suffix", PACKERS)
def test_a_bomb_does_not_fill_memory(suffix: str) -> None:
    packed = bomb(suffix, 150)
    assert len(packed) < 200_000
    tracemalloc.start()
    try:
        assert sum(map(len, unpacked(iter([packed])))) == 150_000_000
        assert tracemalloc.get_traced_memory()[1] < 6_000_000
    finally:
        tracemalloc.stop()


def test_members_without_end_cost_no_more_than_they_hold() -> None:
    many, began = PACKERS[".gz"](b"") * 300_000, time.process_time()
    assert b"".join(unpacked(iter([many, PACKERS[".gz"](b"end")]))) == b"end"
    assert time.process_time() - began < 4  # half a second: taken all at once they would cost the square of it


def test_windows_are_bounded(tmp_path: Path) -> None:
    parameter = zstd.CompressionParameter
    for size in (27, 28):
        packer = zstd.ZstdCompressor(options={parameter.window_log: size, parameter.compression_level: 1})
        (tmp_path / "book.zst").write_bytes(packer.compress(b"hello" * 10) + packer.flush())
        if size == 27:
            assert open_text([tmp_path / "book.zst"]).characters == 50
    assert "128 MiB" in refused(tmp_path / "book.zst")


def test_without_zstd_a_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "book.txt.zst").write_bytes(PACKERS[".zst"](PROSE))
    (tmp_path / "book.txt.gz").write_bytes(PACKERS[".gz"](PROSE))
    monkeypatch.setitem(sys.modules, zstd.__name__, None)
    monkeypatch.delattr(sys.modules[zstd.__name__.split(".")[0]], "zstd")
    assert "pip install backports.zstd" in refused(tmp_path / "book.txt.zst")
    assert open_text([tmp_path / "book.txt.gz"]).bytes == len(PROSE)


def test_a_text_packed_since_is_found_for_what_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "book.txt.zst"
    monkeypatch.setenv("CHARRNN_CORPORA", str(tmp_path))
    assert path not in novelty.places("book")
    path.write_bytes(PACKERS[".zst"](PROSE))
    assert list(novelty.places("book")) == [path]
