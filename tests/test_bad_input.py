"""Bad texts and options, and odd ones that are good: each works, or ends in one line with the right exit code. All in one process."""

import dataclasses
import io
import os
import signal
import socket
import sys
import time
import warnings

import pytest
from conftest import VERSE, cases

from charrnn import cli
from charrnn.config import FillingConfig, SamplingConfig, TrainingConfig, option_name

QUICK = ["--steps", "2", "--hidden", "4", "--threads", "1"]


def main(*arguments):
    """The exit code of the command."""
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        patch.setattr(sys, "argv", ["charrnn", *map(str, arguments)])
        heard = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
        try:
            with pytest.raises(SystemExit) as ended:
                cli.main()
        finally:
            for number, handler in heard.items():
                signal.signal(number, handler)
    return ended.value.code or 0


def refused(capfd, *arguments, code=2, says=""):
    """One line on stderr within a few seconds, nothing on stdout."""
    began = time.process_time()
    found = main(*arguments)
    out, err = capfd.readouterr()
    assert found == code, (arguments, found, err[-1500:])
    assert out == "" and err.startswith("charrnn: ") and err.count("\n") == 1, err
    assert all(char.isprintable() for char in err[:-1]) and says in err and len(err) < 1500 + sum(len(str(word)) for word in arguments), err
    assert time.process_time() - began < 5


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Texts of every kind, and a run."""
    root = tmp_path_factory.mktemp("bad")
    good = {"verse.txt": (VERSE * 8).encode(), "one.txt": b"a", "two.txt": b"ab", "newline.txt": b"\n", "same.txt": b"a" * 3000,
            "crlf.txt": b"ab\r\ncd\r" * 100, "nul.txt": b"text \0 with NUL" * 50, "bom.txt": "\ufeffhello there".encode(),
            "marks.txt": "\u0323\u0302\u0301".encode() * 40, "lower-block.txt": "\u2581\u2585 \u2581".encode() * 60,
            "separators.txt": "a\u2028b\x85c\x0cd\x1ce".encode() * 40, "emoji.txt": "\U0001f469\u200d\U0001f680".encode() * 60,
            "high.txt": "\U0010ffff\ufffe\uffff".encode() * 40, "line.txt": b"word " * 3000, "escapes.txt": b"\x1b[31mred\x1b[0m" * 30,
            "nfd.txt": "Vie\u0323\u0302t".encode() * 50, "nfc.txt": "Việt".encode() * 50, "bidi.txt": "\u202eabc\u2066".encode() * 40,
            "a b'c\"$(x)\n\x1b[1m.txt": b"a name that is hard" * 20, "-dash.txt": b"a name like an option" * 9}
    bad = {"empty.txt": b"", "only-bom.txt": b"\xef\xbb\xbf", "latin.txt": "première".encode("latin-1"),
           "utf16.txt": VERSE.encode("utf-16"), "cut.txt": VERSE.encode()[:3],
           "binary.txt": bytes(range(256)) * 9, "zeros.txt": bytes(9000),
           "elf.txt": b"\x7fELF\0\xff" * 50, "surrogate.txt": b"\xed\xa0\x80", "overlong.txt": b"\xc0\xaf", "past.txt": b"\xf4\x90\x80\x80"}
    for name, content in (good | bad).items():
        (root / name).write_bytes(content)
    os.mkfifo(root / "fifo.txt")
    (root / "loop.txt").symlink_to("loop.txt")
    (root / "gone.txt").symlink_to("nowhere")
    (root / "device.txt").symlink_to("/dev/zero")
    for name in ("none", "nested", "broken", "looped"):
        (root / name).mkdir()
    (root / "nested" / "self").symlink_to(root / "nested")
    (root / "nested" / "x.txt").write_text("once " * 30)
    (root / "broken" / "x.txt").symlink_to("nowhere")
    (root / "looped" / "x.txt").symlink_to("x.txt")
    (root / "file").write_text("x")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CHARRNN_CACHE", str(root / "cache"))
        patch.chdir(root)
        assert main("train", "verse.txt", *QUICK, "--out", root / "run") == 0
        assert main("train", "verse.txt", *QUICK, "--out", root / "both", "--bidirectional") == 0
    return root, good, bad


def test_texts_that_are_none(place, capfd, monkeypatch):
    root, _, bad = place
    monkeypatch.chdir(root)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.txt")
    others = ["missing.txt", "none", "fifo.txt", "loop.txt", "gone.txt", "device.txt", "socket.txt", "broken", "looped", "", "x" * 5000,
              os.fsdecode(b"\xff\x1b.txt"), "/dev/zero", "/dev/urandom", "/dev/null", "/dev/tty", "/proc/self/environ", "/proc/self/mem",
              "/proc/version", "/proc", "missing\n\x1b]0;x\x07.txt", "a/b/c", "verse.txt/x"]
    for name in [*bad, *others]:
        refused(capfd, "train", name, *QUICK, "--out", "new", code=2)
        refused(capfd, "evaluate", "run", name)
    (root / "socket.txt").unlink()
    assert not (root / "new").exists()


def test_odd_texts_that_are_good(place, capfd, monkeypatch):
    root, good, _ = place
    monkeypatch.chdir(root)
    for number, name in enumerate([*good, "nested"]):
        path = f"./{name}"
        level = ("char", "byte", "word", "subword")[number % 4]
        assert main("train", path, *QUICK, "--level", level, "--out", f"odd{number}") == 0, (name, capfd.readouterr())
        assert main("sample", f"odd{number}", "--length", "20", "--seed", "1") == 0
        assert main("evaluate", "run", path) == 0
        assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("content, options, code", [
    (b"hello there " * 9, [], 0), (b"", [], 2), (b"\xff", [], 2), (b"\xff", ["--errors", "replace"], 0), (VERSE.encode("utf-16"), [], 2),
    (VERSE.encode("utf-16"), ["--encoding", "utf-16"], 0), (VERSE.encode("utf-8-sig"), [], 0), ("café".encode("cp1252"), [], 2),
    ("café".encode("cp1252"), ["--encoding", "cp1252"], 0), (b"x", ["--encoding", "base64"], 2), (b"x", ["--encoding", "zip"], 2),
    (b"x", ["--encoding", "rot13"], 2), (b"x", ["--encoding", "idna"], 2), (b"x", ["--encoding", "no\x1bsuch"], 2),
    (b"x", ["--errors", "surrogateescape"], 2), (b"x", ["--encoding", ""], 2), (None, [], 2),
])
def test_standard_input(content, options, code, place, capfd, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "stdin", None if content is None else io.TextIOWrapper(io.BytesIO(content)))
    if code:
        refused(capfd, "train", "-", *QUICK, *options, "--out", tmp_path / "x", code=code)
    else:
        assert main("train", "-", *QUICK, *options, "--out", tmp_path / "x") == 0


def test_standard_input_that_does_not_end(place, capfd, monkeypatch, tmp_path):
    from charrnn import sources

    root, _, _ = place
    for device in ("/dev/zero", "/dev/urandom"):
        with open(device) as stream:
            monkeypatch.setattr(sys, "stdin", stream)
            refused(capfd, "train", "-", *QUICK, "--out", tmp_path / "x", says="device")
            refused(capfd, "sample", root / "run", "--prompt", "-", says="longer")
    monkeypatch.setattr(sources.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 3 << 20}))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"y\n" * (1 << 20))))
    refused(capfd, "train", "-", *QUICK, "--out", tmp_path / "x", says="does not end")
    monkeypatch.setattr(sys, "stdin", None)
    refused(capfd, "sample", root / "run", "--prompt", "-", says="closed")


def wrong_values():
    """For each field of a configuration that is a number or a choice, values that it must not take."""
    for command, config in (("train", TrainingConfig), ("sample", SamplingConfig), ("fill", FillingConfig)):
        for field in dataclasses.fields(config):
            about, kind = field.metadata, str(field.type)
            values = []
            if about["choices"]:
                values = ["X", "", "\x1b[2J"]
            elif "int" in kind or "float" in kind:
                values = ["x", "", "nan", "inf", "-inf", "1e999", "--", "0x10", "1,5"]
                values += [] if about["low"] is None else [about["low"] - 1]
                values += [] if about["above"] is None else [about["above"]]
                values += [] if about["high"] is None else [about["high"] * 2 + 1, "9" * 400]
            for value in values:
                yield command, option_name(field.name), str(value)


@pytest.mark.parametrize("command", ["train", "sample", "fill"])
def test_values_that_no_option_takes(command, place, capfd, monkeypatch):
    monkeypatch.chdir(place[0])
    first = {"train": ["verse.txt", "--out", "new"], "sample": ["run"], "fill": ["both", "a ___ b"]}[command]
    tried = [(option, value) for name, option, value in wrong_values() if name == command]
    assert len(tried) > 15
    for option, value in tried:
        refused(capfd, command, *first, option, value)
    assert not (place[0] / "new").exists()


@pytest.mark.parametrize("line, code", [
    ("train", 2), ("train verse.txt --nonsense", 2), ("train verse.txt --steps", 2), ("nonsense", 2), ("train verse.txt --time 0s", 2),
    ("train verse.txt --time -5", 2), ("train verse.txt --time soon", 2), ("train verse.txt --time 1e9h", 2),
    ("train verse.txt --time 1m --steps 2", 2), ("train verse.txt --steps 2 --epochs 1", 2), ("train verse.txt --activation relu", 2),
    ("train verse.txt --gru-reset after", 2), ("train verse.txt --vocab-size 99", 2), ("train verse.txt --level word --vocab-size 2", 2),
    ("train verse.txt --level word --vocab-size 262145", 2),
    ("train verse.txt --level subword --vocab-size 259", 2), ("train verse.txt --level subword --vocab-size 9999999", 2),
    ("train verse.txt --device tpu --steps 1", 2), ("train verse.txt --device cuda:99 --steps 1", 2),
    ("train verse.txt --resume --out none", 2),
    ("train verse.txt --resume --init-from run --out none", 2), ("train verse.txt --init-from none --out new", 2),
    ("train verse.txt --init-from run --hidden 9 --out new", 2), ("train verse.txt --out run", 2), ("train verse.txt --out file", 2),
    ("train nfc.txt --resume --out run", 2), ("train verse.txt --resume --hidden 9 --out run", 2), ("train - - --out new", 2),
    ("train verse.txt --steps 1 --out /proc/nowhere", 5), ("train verse.txt --steps 1 --out file/run", 5),
    ("sample", 2), ("sample none", 2), ("sample file", 2), ("sample /dev/zero", 2), ("sample nowhere/run", 2), ("sample both", 2),
    ("sample run --prompt \udcff", 2), ("sample run --count 99999", 2), ("fill run", 2), ("fill none x", 2), ("fill both nothing", 2),
    ("evaluate", 2), ("evaluate run", 2), ("evaluate none verse.txt", 2), ("evaluate run verse.txt --errors x", 2),
    ("evaluate run verse.txt --threads 0", 2), ("evaluate run verse.txt --device x", 2), ("evaluate run verse.txt --encoding x", 2),
    ("inspect", 2), ("inspect none", 2), ("inspect fifo.txt", 2), ("inspect loop.txt", 2), ("inspect run --unit 1:1", 2),
    ("inspect run --text abc --unit x", 2), ("inspect run --text abc --unit 9:99", 2), ("inspect run --text abc --gate nonsense", 2),
    ("sample both --prompt 漢", 2), ("sample both --prompt 漢 --dynamic", 2), ("fill both 漢", 2), ("fill both 漢_ --length 0", 2),
    ("inspect run --text 漢 --gate reset", 2), ("inspect run --text 漢 --unit 9:99", 2), ("inspect run --text 漢 --find", 2),
    ("inspect run --text 漢 --unit 1:1 --backward", 2), ("report run --text 漢 --plot new", 2), ("evaluate both bidi.txt --dynamic", 2),
    ("fetch nonsense", 2), ("fetch time-machine --to file", 5), ("fetch \x1b[2J", 2), ("--nonsense", 2),
])
def test_options_that_do_not_go_together(line, code, place, capfd, monkeypatch):
    monkeypatch.chdir(place[0])
    monkeypatch.setenv("CHARRNN_CORPORA", str(place[0]))
    refused(capfd, *line.split(" "), code=code)
    assert not (place[0] / "new").exists()


@pytest.mark.parametrize("line", [
    "--help", "--version", "train --help", "sample --help", "fill --help", "evaluate --help", "inspect --help", "fetch --help", "fetch",
    "sample run --length 0", "sample run --length 5 --temperature 0", "sample run --length 5 --temperature 100",
    "sample run --length 5 --top-k 1",
    "sample run --length 5 --top-k 16777216", "sample run --length 5 --top-p 0.000001", "sample run --length 5 --min-p 1",
    "sample run --length 5 --repetition-penalty 100", "sample run --length 9 --count 3 --json", "sample run --length 5 --raw",
    "sample run --length 5 --prompt \x1b[2J", "sample run/model.safetensors --length 5", "evaluate run nfc.txt nfd.txt --json",
    "evaluate run bidi.txt", "inspect run", "inspect run --json", "inspect both", "fill both a___m --count 2",
    "inspect run --text a\x1b[2J",
])
def test_what_is_odd_and_works(line, place, capfd, monkeypatch):
    monkeypatch.chdir(place[0])
    assert main(*line.split(" ")) == 0, capfd.readouterr()
    out, err = capfd.readouterr()
    assert "Traceback" not in err and (out or line.endswith("--length 0"))


def test_many_files(tmp_path, capfd):
    for number in range(cases(1_000, 10_000)):
        (tmp_path / f"{number:05}.txt").write_text("ab ")
    assert main("train", tmp_path, *QUICK, "--out", tmp_path / "run") == 0


def test_a_file_that_grows_without_end(tmp_path, capfd, monkeypatch):
    """What is read is what was there when it was opened; more of it is refused, not waited for."""
    path, real = tmp_path / "log.txt", os.pread
    path.write_text("a line\n" * 1000)

    def growing(fd, size, offset):
        with open(path, "a") as file:
            file.write("one more line\n")
        return real(fd, size, offset)

    monkeypatch.setattr(os, "pread", growing)
    refused(capfd, "train", path, *QUICK, "--out", tmp_path / "run", says="log.txt")


def test_a_defect_is_told_without_a_word_of_it_obeyed(place, capfd, monkeypatch):
    monkeypatch.setattr("charrnn.checkpoint.load", lambda run: 1 / 0 if run else None)
    assert main("inspect", "\x1b]0;x\x07") == 1
    out, err = capfd.readouterr()
    assert out == "" and "defect" in err.splitlines()[-1] and "\x1b" not in err and "ZeroDivisionError" in err
