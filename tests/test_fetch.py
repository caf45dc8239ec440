"""Fetching, from a server of our own: whole files or none, whatever it does; nothing of the user's is overwritten."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from charrnn import fetch as module
from charrnn.errors import DataError, StorageError, UsageError
from charrnn.fetch import Entry, catalogue, fetch

TEXT = bytes(range(1, 256)) * 700
SHA = hashlib.sha256(TEXT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves TEXT; `cuts`: bytes after which each answer in turn breaks off; `asked`: the Range headers it got."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.text, self.ranges, self.length = TEXT, True, True
        self.cuts: list[int] = []
        self.asked: list[str | None] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/text"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.asked.append(wanted)
        text, begin = self.server.text, 0
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/text")
            self.end_headers()
            return
        if wanted and self.server.ranges:
            begin = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if begin >= len(text):
                self.send_error(416)
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {begin}-{len(text) - 1}/{len(text)}")
        else:
            self.send_response(200)
        if self.server.length:
            self.send_header("Content-Length", str(len(text) - begin))
        self.end_headers()
        text = text[begin:]
        self.wfile.write(text[: self.server.cuts.pop(0)] if self.server.cuts else text)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No mirror of the machine's, no proxy between the test and its server."""
    for name in ("CHARRNN_CORPORA", "http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


def entry(*addresses: str) -> dict[str, Entry]:
    return {"some": Entry("A title", "An author", "some.txt", len(TEXT), SHA, addresses, "public domain")}


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_catalogue() -> None:
    known = catalogue()
    assert set(known) == {"time-machine", "tiny-shakespeare", "truyen-kieu", "python-docs"}
    assert known["time-machine"].sha256 == "8424dbd9532ac81f7e5f0b6add90e6952baea29158309d7d1bf3884f4e12c516"
    for text in known.values():
        assert text.title and text.author and text.licence and text.file.endswith(".txt") and "/" not in text.file
        assert text.sha256 is None or len(text.sha256) == 64
        assert all(address.startswith(("http://", "https://")) for address in text.addresses)


def test_a_download_in_one_go(server: Server, tmp_path: Path) -> None:
    told: list[tuple[int, int | None]] = []
    path = fetch("some", tmp_path / "new" / "data", entries=entry(server.address), progress=lambda *sizes: told.append(sizes))
    assert path.read_bytes() == TEXT and left(path.parent) == ["some.txt"]
    assert told[0] == (0, len(TEXT)) and told[-1] == (len(TEXT), len(TEXT)) and told == sorted(told)
    server.asked.clear()
    assert fetch("some", path.parent, entries=entry(server.address)) == path and server.asked == []  # it is there


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("length", [True, False])
def test_a_cut_connection_goes_on(server: Server, tmp_path: Path, ranges: bool, length: bool) -> None:
    server.ranges, server.length, server.cuts = ranges, length, [100_000, 50_000]
    assert fetch("some", tmp_path, entries=entry(server.address)).read_bytes() == TEXT
    assert server.asked == [None, "bytes=100000-", "bytes=150000-" if ranges else "bytes=50000-"]


def test_a_connection_cut_for_good_is_resumed_by_the_next_run(server: Server, tmp_path: Path) -> None:
    server.cuts = [1000, 1000, 1000]
    with pytest.raises(DataError, match="run the command again"):
        fetch("some", tmp_path, entries=entry(server.address))
    assert left(tmp_path) == ["some.txt.part"]
    assert fetch("some", tmp_path, entries=entry(server.address)).read_bytes() == TEXT
    assert server.asked[-1] == "bytes=3000-" and left(tmp_path) == ["some.txt"]


def test_a_part_file_that_is_whole_or_too_long(server: Server, tmp_path: Path) -> None:
    for part in (TEXT, TEXT + b"more"):
        (tmp_path / "some.txt").unlink(missing_ok=True)
        (tmp_path / "some.txt.part").write_bytes(part)
        assert fetch("some", tmp_path, entries=entry(server.address)).read_bytes() == TEXT


@pytest.mark.parametrize("served", [TEXT[:-1] + b"!", TEXT + b"!" * 300_000, b"<html>not here</html>"])
def test_wrong_bytes_are_refused(server: Server, tmp_path: Path, served: bytes) -> None:
    server.text = served
    with pytest.raises(DataError, match=r"refused.*--mirror") as refused:
        fetch("some", tmp_path, entries=entry(server.address))
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "some.txt").exists()
    assert left(tmp_path) == []
    if len(served) <= len(TEXT):
        assert SHA in str(refused.value) and hashlib.sha256(served).hexdigest() in str(refused.value)
    server.text = TEXT
    assert fetch("some", tmp_path, entries=entry(server.address)).read_bytes() == TEXT


def test_the_second_address_and_a_redirect(server: Server, tmp_path: Path) -> None:
    moved = server.address.replace("/text", "/moved")
    assert fetch("some", tmp_path, entries=entry("http://127.0.0.1:9/none", moved)).read_bytes() == TEXT


def test_no_network_is_one_line_that_names_the_mirror(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="--mirror or in CHARRNN_CORPORA") as refused:
        fetch("some", tmp_path, entries=entry("http://127.0.0.1:9/none"))
    assert "\n" not in str(refused.value)
    with pytest.raises(DataError, match=r"no address is known.*some\.txt"):
        fetch("some", tmp_path, entries=entry())


def test_mirrors_come_first(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two, data = tmp_path / "one", tmp_path / "two", tmp_path / "data"
    for folder in (one, two):
        folder.mkdir()
    (two / "some.txt").write_bytes(TEXT)
    monkeypatch.setenv("CHARRNN_CORPORA", str(two))
    path = fetch("some", data, mirror=one, entries=entry(server.address))  # one has it not, two has
    assert path.read_bytes() == TEXT and server.asked == []
    path.unlink()
    (two / "some.txt").write_bytes(b"other")  # a mirror with wrong bytes is passed over
    assert fetch("some", data, mirror=two, entries=entry(server.address)).read_bytes() == TEXT and len(server.asked) == 1
    path.unlink()
    with pytest.raises(DataError, match="refused"):
        fetch("some", data, mirror=two, entries=entry())
    assert left(data) == []


def test_another_file_of_that_name_is_never_overwritten(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "some.txt"
    path.write_bytes(b"my own")
    with pytest.raises(DataError, match="move it away"):
        fetch("some", tmp_path, entries=entry(server.address))
    assert path.read_bytes() == b"my own" and left(tmp_path) == ["some.txt"]
    path.unlink()
    path.mkdir()
    with pytest.raises(DataError, match="not a file"):
        fetch("some", tmp_path, entries=entry(server.address))


def test_nothing_is_written_by_way_of_a_link(server: Server, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"my own")
    data = tmp_path / "data"
    data.mkdir()
    (data / "some.txt.part").symlink_to(victim)
    with pytest.raises(StorageError):
        fetch("some", data, entries=entry(server.address))
    assert victim.read_bytes() == b"my own"


def test_a_full_or_read_only_folder(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="No space left"):
        fetch("some", tmp_path, entries=entry(server.address))
    assert not (tmp_path / "some.txt").exists()


def test_python_docs_are_in_every_python(tmp_path: Path) -> None:
    path = fetch("python-docs", tmp_path)
    text = path.read_text(encoding="utf-8")
    assert len(text) > 300_000 and "The \"assert\" statement" in text and left(tmp_path) == ["python_docs.txt"]
    path.write_text("kept", encoding="utf-8")  # another Python's: there is no telling, and no overwriting
    assert fetch("python-docs", tmp_path).read_text(encoding="utf-8") == "kept"


def test_unknown_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="time-machine"):
        fetch("war-and-peace", tmp_path)


def test_real_texts_have_their_digests(tmp_path: Path) -> None:
    folder = Path(os.environ.get("CHARRNN_CORPORA") or Path(__file__).parents[2] / "shared" / "corpora")
    for name, text in catalogue().items():
        if text.sha256 is not None:
            if not (folder / text.file).is_file():
                pytest.skip(f"{text.file} is not there: set CHARRNN_CORPORA to a folder that holds it")
            path = fetch(name, tmp_path, mirror=folder, entries={name: dataclasses.replace(text, addresses=())})
            assert module.digest_of(path) == text.sha256 and path.stat().st_size == text.bytes
