"""The examples as a user runs them, at small size."""

import importlib.util
import os
import re
import subprocess
from pathlib import Path

import pytest
from conftest import corpus_file

import charrnn.fetch
from charrnn.checkpoint import MODEL
from charrnn.errors import DataError

ROOT = Path(__file__).parents[1]
TINY = ["--steps", "25", "--epochs", "40", "--letters", "400", "--hidden", "32", "--threads", "1"]


def example(name):
    spec = importlib.util.spec_from_file_location(f"example_{name}", ROOT / "examples" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def contents(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_hello(tmp_path, capsys):
    module = example("hello")
    assert module.main(["--out", str(tmp_path)]) == 0
    first = capsys.readouterr().out
    assert first.count('After "h" it writes "ello".') == 3 and "1 0 0 0" in first
    assert {path.name for path in tmp_path.iterdir()} == {"hello-rnn", "hello-gru", "hello-lstm"}
    before = contents(tmp_path)
    assert module.main(["--out", str(tmp_path)]) == 0
    second = capsys.readouterr().out
    assert second.count("is there already and is used again") == 3 and second.count('writes "ello"') == 3
    assert {path: data for path, data in contents(tmp_path).items() if path.name.startswith("model")} == {
        path: data for path, data in before.items() if path.name.startswith("model")}


def test_the_probabilities_that_are_shown_are_a_distribution(tmp_path):
    module = example("hello")
    for event in charrnn.train(ROOT / "data" / "hello.txt", tmp_path / "run", cell="rnn", hidden=5, steps=3):
        assert event
    table = module.steps(charrnn.load(tmp_path / "run"), "hello")
    columns = [list(column.cells) for column in table.columns]
    assert columns[1] == ["<start>", "h", "e", "l", "l"] and columns[3] == list("hello")
    vectors = [one.split() for one in columns[2]]
    assert all(sorted(one) == ["0"] * 5 + ["1"] for one in vectors) and vectors[3] == vectors[4] and vectors[1].index("1") == 1
    for row in zip(*columns[4:]):
        assert 0.5 < sum(float(cell.replace("[bold]", "").replace("[/]", "")) for cell in row) <= 1.001  # the rest is the escape's


def test_time_machine(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("CHARRNN_CORPORA", str(corpus_file("time_machine.txt").parent))
    module = example("time_machine")
    arguments = [*TINY, "--data", str(tmp_path / "data"), "--out", str(tmp_path / "runs")]
    assert module.main(arguments) == 0
    said = " ".join(capsys.readouterr().out.split())
    for word in ("held-out", "rnn: time traveller", "gru: time traveller", "lstm: time traveller", "next 200 letters", "blind guess"):
        assert word in said
    plain = (tmp_path / "data" / "time_machine_first_400.txt").read_text() + (tmp_path / "data" / "time_machine_next_200.txt").read_text()
    assert len(plain) == 600 and plain.startswith("the time machine by h g wells i the time traveller") and "  " not in plain
    assert len(list((tmp_path / "runs").iterdir())) == 6
    (tmp_path / "data" / "time_machine_next_200.txt").write_text("mine")
    assert module.main(arguments) == 2
    done = capsys.readouterr()
    assert done.out.count("is there already") == 3 and "another text is there" in done.err
    assert (tmp_path / "data" / "time_machine_next_200.txt").read_text() == "mine"


def test_no_book(tmp_path, capsys, monkeypatch):
    def unreachable(address, *more):
        raise DataError("no network")

    monkeypatch.setattr(charrnn.fetch, "download", unreachable)
    monkeypatch.delenv("CHARRNN_CORPORA", raising=False)
    assert example("time_machine").main(["--data", str(tmp_path)]) == 2
    said = capsys.readouterr()
    assert said.err.count("\n") == 1 and "CHARRNN_CORPORA" in said.err and said.out == ""


STUB = """#!/bin/sh
echo "$*" >> calls
case "$*" in
    "fetch time-machine") if [ -e network ]; then echo data/time_machine.txt; else exit 2; fi ;;
    "fetch python-docs") echo data/python_docs.txt ;;
    "train data/hello.txt") mkdir -p checkpoints/hello; touch checkpoints/hello/model.safetensors ;;
    *--resume) if [ -e other ]; then rm other; exit 2; fi ;;
    train*) mkdir -p "$4" ;;
esac
"""


@pytest.fixture
def demo(tmp_path):
    """Runs demo.sh with a charrnn that only notes what it is asked for."""
    (tmp_path / "bin").mkdir()
    stub = tmp_path / "bin" / "charrnn"
    stub.write_text(STUB)
    stub.chmod(0o755)

    def run():
        (tmp_path / "calls").write_text("")
        done = subprocess.run(["sh", str(ROOT / "examples" / "demo.sh")], cwd=tmp_path, capture_output=True, text=True, timeout=30,
                              env={**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"})
        assert done.returncode == 0, done.stderr
        return done.stdout, (tmp_path / "calls").read_text().splitlines()

    return run


def test_the_demo_shows_what_it_runs_and_uses_what_is_there(demo, tmp_path):
    said, calls = demo()
    assert "cannot be fetched" in said and "train data/python_docs.txt --out checkpoints/demo" in calls
    for call in calls:
        assert call.startswith("fetch") or f"$ charrnn {call}\n" in said
    assert [call.split()[5] for call in calls if "--temperature" in call and "demo" in call] == ["0.5", "0.8", "1.1"]
    (tmp_path / "network").touch()
    _, calls = demo()
    assert "train data/hello.txt" not in calls and "train data/time_machine.txt --out checkpoints/demo --resume" in calls
    assert "train data/time_machine.txt --out checkpoints/demo" not in calls
    (tmp_path / "other").touch()  # checkpoints/demo turns out to be another text's
    _, calls = demo()
    assert "train data/time_machine.txt --out checkpoints/demo-2" in calls and "inspect checkpoints/demo-2" in calls


def test_names_are_new(tmp_path, capsys):
    assert example("names").main(["--steps", "60", "--count", "5", "--out", str(tmp_path / "names")]) == 0
    names, said = capsys.readouterr().out.split("\n\n")
    known = set((ROOT / "data" / "names.txt").read_text(encoding="utf-8").split())
    assert len(set(names.split(", "))) == 5 and not set(names.split(", ")) & known
    new, listed, written, seen, again = (int(number.replace(",", "")) for number in re.findall(r"[\d,]*\d", said))
    assert (new, listed) == (5, len(known)) and written == new + seen + again


def test_music_begins_with_its_head(tmp_path, capsys):
    assert example("music").main(["--steps", "30", "--title", "Mine", "--out", str(tmp_path / "music")]) == 0
    said = capsys.readouterr()
    assert said.out.startswith("X:1\nT:Mine\nM:4/4\nL:1/4\nK:C\n") and re.match(r"\d+ % of it stands in the tunes", said.err)


def test_poems_are_measured_by_their_form(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("CHARRNN_CORPORA", str(corpus_file("truyen_kieu.txt").parent))
    module = example("poems")
    six, eight = "một hai ba bốn năm sáu", "một hai ba bốn năm sáu bảy tám"
    assert module.form(f"\n{six}\n{eight}\n{six}\n{eight}\nx") == (1, 1)
    assert module.form(f"\n{six}\n{six}\nmột\n{eight}\nx") == (0.75, 0)
    assert module.main(["--steps", "3", "--data", str(tmp_path), "--out", str(tmp_path / "runs")]) == 0
    said = capsys.readouterr().out
    assert "char: " in said and "subword: " in said and said.count("couplet") == 2


def test_source_code_lines_that_parse_are_counted(tmp_path, capsys):
    module = example("source_code")
    assert all(map(module.parses, ("    x = 1", "def f(a):", "elif x:", "except E:"))) and not any(map(module.parses, (")(", "if")))
    (tmp_path / "a.py").write_text("def f(x):\n    return x\n" * 60)
    assert module.main([str(tmp_path / "a.py"), "--steps", "20", "--out", str(tmp_path / "code")]) == 0
    assert "lines parse by themselves" in capsys.readouterr().out


def test_sentiment_by_two_models(tmp_path, capsys):
    arguments = ["--steps", "40", "--out", str(tmp_path), "The soup was awful. Never again."]
    assert example("sentiment").main(arguments) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert int(first.split()[0]) > 80 and first.split()[2] == "120" and second == "bad: The soup was awful. Never again."


def test_pairs_are_translated_and_tagged(tmp_path, capsys):
    module = example("pairs")
    told = {0: "không", 10: "mười", 15: "mười lăm", 21: "hai mươi mốt", 55: "năm mươi lăm", 105: "một trăm lẻ năm",
            711: "bảy trăm mười một"}
    assert {n: module.vietnamese(n) for n in told} == told
    assert [module.english(n) for n in (0, 19, 40, 342)] == ["zero", "nineteen", "forty", "three hundred forty two"]
    assert len(dict(module.tagging())) > 200 and module.tagging()[0] == ("the old dog sees the house", "D A N V D N")
    assert module.main(["--steps", "4", "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert said.count("of 60 new sources come out right") == 2 and said.count(" -> ") == 6


@pytest.mark.parametrize("name", ["names", "music", "sentiment", "pairs", "poems", "source_code"])
def test_a_run_is_used_again_and_one_of_another_length_is_not_taken_for_it(name, tmp_path, capsys, monkeypatch):
    module, given = example(name), ["--out", str(tmp_path / "run"), *(["--count", "2"] if name == "names" else [])]
    if name == "poems":
        monkeypatch.setenv("CHARRNN_CORPORA", str(corpus_file("truyen_kieu.txt").parent))
        given += ["--data", str(tmp_path)]
    assert module.main(["--steps", "3", *given]) == 0
    first, made = capsys.readouterr().out, contents(tmp_path / "run")
    assert module.main(["--steps", "3", *given]) == 0
    assert capsys.readouterr().out == first
    assert module.main(["--steps", "4", *given]) == 2
    said = capsys.readouterr()
    assert said.out == "" and "--steps 3, not 4" in said.err and said.err.count("\n") == 1
    assert {path for path in made if path.name == MODEL} and contents(tmp_path / "run").keys() == made.keys()
