"""Models beside each other: bits by context against the definition, equal sizes, and what the command prints."""

import io
import json
import math

import numpy as np
import pytest
import torch

from charrnn import comparison, recall, versus
from charrnn.cli import main
from charrnn.comparison import KINDS, by_context, settings_of
from charrnn.config import CompareConfig, ModelConfig
from charrnn.corpus import prepare
from charrnn.errors import UsageError
from charrnn.lines import Progress
from charrnn.model import Model
from charrnn.recipe import shape
from charrnn.text import open_text


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("size", [1, 4, 9])
def test_bits_by_context_are_those_of_exactly_so_many_tokens(size, bidirectional, monkeypatch):
    monkeypatch.setattr(comparison, "PLACES", 600)
    config = ModelConfig(cell="gru", layers=2, hidden=6, embedding=0, vocabulary=7, bidirectional=bidirectional)
    model = Model(config, torch.Generator().manual_seed(1)).double()
    tokens = np.random.default_rng(0).integers(7, size=60)
    nats = []
    for place in range(9, 51 if bidirectional else 60):
        ids = torch.from_numpy(tokens)[:, None]
        after = ids[place + 1 : place + size + 1] if bidirectional else None
        with torch.no_grad():
            hidden, _ = model.hidden(ids[place - size : place], model.zero_state(1))
            hidden = hidden[-1:]
            if after is not None:
                hidden = torch.cat([hidden, model.hidden(after.flip(0), model.zero_state(1), backward=True)[0][-1:]], 2)
            p = torch.log_softmax((hidden @ model.output["w"] + model.output["b"])[0, 0], 0)
        nats.append(-float(p[tokens[place]]))
    assert by_context(model, tokens, size, longest=9) == pytest.approx(np.mean(nats) / math.log(2))


def test_a_second_layer_helps_or_harms_by_more_than_seeds_do_or_it_cannot_be_told():
    def row(bits):
        return comparison.Compared("", "", 1, 1, 1, 1, 1.0, 1000, bits, dict.fromkeys(comparison.CONTEXTS, 2.5), False, "")

    for deep, expected in ((2.0 - 0.021, True), (2.0 - 0.019, None), (2.0 + 0.019, None), (2.0 + 0.021, False)):
        said = {claim: holds for claim, _, holds in comparison.claims(
            {"rnn": row(2.3), "lstm": row(2.0), "gru": row(2.0), "deep": row(deep)})}
        assert said["a second layer helps"] is expected


@pytest.mark.parametrize("lstm, rnn, speed, expected", [
    ((2.5, 2.2, 2.1), (2.5, 2.5, 2.5), 1.2, (True, True, True)), ((2.5, 2.5, 2.5), (2.5, 2.5, 2.5), 1.02, (None, None, None)),
    ((2.5, 2.2, 2.2002), (2.5, 2.2, 2.2), 0.9, (False, None, False)), ((2.5, 2.5, 2.5), (2.5, 2.3, 2.2), 0.97, (False, False, None))])
def test_what_nothing_measured_bears_on_is_neither_held_nor_refuted(lstm, rnn, speed, expected):
    """Bits after 16, 64 and 256 characters; a gru's speed against an lstm's."""
    def row(bits, speed=1.0):
        return comparison.Compared("", "", 1, 1, 1, 1, 1.0, 1000 * speed, 2.0, dict(zip((16, 64, 256), bits)), False, "")

    said = {claim: (measured, holds) for claim, measured, holds in comparison.claims(
        {"rnn": row(rnn), "lstm": row(lstm), "gru": row(lstm, speed), "deep": row(lstm)})}
    remembers, forgets, faster = (said[f"a{claim}"] for claim in ("n lstm remembers longer than a plain rnn", " plain rnn forgets",
                                                                  " gru trains faster than an lstm"))
    assert (remembers[1], forgets[1], faster[1]) == expected and "-0.000" not in remembers[0] + forgets[0]


@pytest.mark.parametrize("name", KINDS)
def test_equal_parameters_are_equal(name):
    settings = settings_of(name, CompareConfig(hidden=64), 100_000, 70)
    goal = shape(settings_of("lstm", CompareConfig(hidden=64), 100_000, 70), 100_000, 70).parameters()
    assert shape(settings, 100_000, 70).parameters() == pytest.approx(goal, rel=0.02) and settings.steps == comparison.STEPS
    assert settings_of(name, CompareConfig(equal="time", hidden=64), 100_000, 70).time == comparison.TIME


def test_keys_are_shown_and_asked_for_at_the_distance():
    tokens, keys = recall.sequences(np.random.default_rng(0), 3, 7)
    assert tokens.shape == (7 + 2 * recall.SHOWN, 3) and np.array_equal(tokens[: recall.SHOWN], keys)
    assert (tokens[-recall.SHOWN :] == recall.ASK).all() and keys.max() < recall.KEYS <= tokens[recall.SHOWN : -recall.SHOWN].min()


def test_what_remembers_recalls_and_what_does_not_guesses(monkeypatch):
    monkeypatch.setattr(recall, "DISTANCES", (1, 3))
    monkeypatch.setattr(recall, "SHOWN", 1)
    found = {row["model"]: row for row in recall.recall(steps=80, hidden=24)}
    assert "both ways" not in found and list(found["gru"]["accuracy"]) == [1, 3]
    assert all(share > 0.9 for share in found["gru"]["accuracy"].values())
    assert all(share < 0.25 for share in found["mlp"]["accuracy"].values())
    stream = io.StringIO()
    versus.recall_table(list(found.values()), recall.KEYS, recall.SHOWN, stream)
    assert "12.5 %" in stream.getvalue()


def run_command(monkeypatch, capsys, *arguments):
    monkeypatch.setattr("sys.argv", ["charrnn", "compare", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code, capsys.readouterr()


@pytest.mark.parametrize("arguments", [[], ["--recall", "--time", "3s"], ["book.txt", "--time", "3s", "--steps", "4"]])
def test_what_makes_no_sense_is_refused_in_one_line(arguments, monkeypatch, capsys):
    code, said = run_command(monkeypatch, capsys, *arguments)
    assert code == UsageError.exit_code and said.out == "" and len(said.err.splitlines()) == 1


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("".join(f"line {n * n} of a text about {n % 7} things\n" for n in range(200)), encoding="utf-8")
    return path


def test_it_tells_how_far_each_model_is(text, tmp_path):
    told = {}
    corpus = prepare(open_text([text]), level="char", vocab_size=None, valid=0.1)
    rows = comparison.compare(corpus, CompareConfig(steps=3, hidden=8, threads=1), tmp_path / "runs",
                              lambda name, *how: told.setdefault(name, []).append(how))
    for row in rows:
        assert list(told)[-1] == row.model and told[row.model][0][0] < told[row.model][-1][0] == row.steps == 3
    assert list(told) == list(KINDS)


def test_what_takes_long_says_how_much_longer():
    now, stream = [0.0], io.StringIO()
    progress = Progress("training rnn", stream, clock=lambda: now[0], unit="steps")
    for second in range(0, 41):
        now[0] = float(second)
        progress(10 + second, 110)
    assert stream.getvalue().splitlines() == [f"training rnn: {done} of 110 steps, {left} left"
                                              for done, left in ((20, "1:30"), (30, "1:20"), (40, "1:10"), (50, "1:00"))]


def test_the_command_compares(text, tmp_path, monkeypatch, capsys):
    common = [text, "--steps", 2, "--hidden", 8, "--threads", 1]
    code, said = run_command(monkeypatch, capsys, *common, "--json", "--out", tmp_path / "runs")
    *rows, last = map(json.loads, said.out.splitlines())
    assert code == 0 and [row["model"] for row in rows] == list(KINDS)
    assert "pseudo_bits_per_character" in rows[-1] and "bits_per_character" not in rows[-1]
    assert list(rows[0]["by_context"]) == ["1", "4", "16", "64", "256"]
    assert {"claim", "measured", "holds"} == set(last["claims"][0])
    assert (tmp_path / "runs" / "both-ways" / "model.safetensors").is_file()
    kept = (tmp_path / "runs" / "mlp" / "model.safetensors").read_bytes()
    (tmp_path / "runs" / "mlp").rename(tmp_path / "mlp")
    code, said = run_command(monkeypatch, capsys, *common, "--out", tmp_path / "runs")  # the rnn's is there
    assert code == 2 and "there is a run here already" in said.err and said.err.count("\n") == 1
    assert not (tmp_path / "runs" / "mlp").exists()
    (tmp_path / "mlp").rename(tmp_path / "runs" / "mlp")
    code, said = run_command(monkeypatch, capsys, *common, "--out", tmp_path / "runs")
    assert code == 2 and (tmp_path / "runs" / "mlp" / "model.safetensors").read_bytes() == kept
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("charrnn.tables.PIPED", 80)
    code, said = run_command(monkeypatch, capsys, *common)
    assert code == 0 and all(len(line) <= 80 for line in said.out.splitlines()) and "does not hold" in said.out
    assert "cannot be told" in said.out
    text.write_text("too short", encoding="utf-8")
    code, said = run_command(monkeypatch, capsys, *common)
    assert code == 2 and "too short" in said.err.splitlines()[-1]
