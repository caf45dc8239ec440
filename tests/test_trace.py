"""A look inside: surprises sum to what evaluate finds, gates are those of the equations, and units that are planted are found."""

import dataclasses
import json
import os
import pty
import subprocess
import sys

import numpy as np
import pytest
from conftest import VERSE
from small import ALL, BOTH, NAMES, SHAPES, random_run

from charrnn import checkpoint, units
from charrnn.cli import main
from charrnn.commands import looking
from charrnn.errors import DataError, UsageError
from charrnn.evaluation import evaluate
from charrnn.runtime import Runtime
from charrnn.text import open_text
from charrnn.trace import Reading, read, trace

TOLD = "Trăm năm, 12 w\x1b[31m\nễ\tchữ 😀 " * 3


@pytest.mark.parametrize("shape, level", [(shape, "char") for shape in ALL] + [(BOTH[0], "byte"), (SHAPES[0], "byte"), (SHAPES[1], "word"),
                                                                                   (SHAPES[3], "subword")])
def test_surprises_sum_to_what_evaluate_finds(shape, level, tmp_path):
    run = random_run(VERSE * 8, level, **shape)
    (tmp_path / "told.txt").write_text(TOLD, encoding="utf-8")
    reading = read(run, TOLD, alternatives=3)
    both = "pseudo_" if run.config.bidirectional else ""
    assert reading.nats.sum() == pytest.approx(evaluate(run, open_text([tmp_path / "told.txt"]))[f"{both}nats"], rel=1e-5)
    assert reading.as_json()[f"{both}nats"] == reading.nats.sum() and f"{both}nats" in reading.as_json()["tokens"][0]
    assert "".join(reading.texts) == "".join(text for text, _, _ in reading.spans()) == TOLD
    assert [at for _, *ends in reading.spans() for at in ends][1:-1:2] == [at for _, *ends in reading.spans() for at in ends][2::2]
    assert (np.diff(reading.p, axis=1) <= 0).all()
    guessed = reading.likely[:, 0] == run.tokenizer.model_ids(reading.ids)
    known = reading.ids < run.tokenizer.size - (run.tokenizer.escape is not None)
    np.testing.assert_allclose(reading.nats[guessed & known], -np.log(reading.p[guessed & known, 0]))


def sigma(x):
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize("shape", SHAPES, ids=NAMES)
def test_gates_and_states_are_those_of_the_equations(shape):
    """Written out once more, from the weights and the states that were found."""
    run = random_run(VERSE, **shape)
    weights = {name: value.astype(np.float64) for name, value in run.weights.items()}
    tokens = np.random.default_rng(1).integers(run.config.vocabulary, size=(9, 3))
    runtime, H = Runtime(run.config, weights), run.config.hidden
    layers, state = trace(runtime, tokens), runtime.zero_state(3)
    for t in range(len(tokens)):
        _, state = runtime.step(tokens[t], state)
        for layer, part in zip(layers, state):
            for name, value in zip(("hidden", "memory"), part):
                np.testing.assert_allclose(layer[name][t], value, atol=1e-13)
    for number, layer in enumerate(layers):
        if number:
            x = layers[number - 1]["hidden"] @ weights[f"layers.{number}.w_x"] + weights[f"layers.{number}.b"]
        else:
            x = runtime.table[tokens]
        before = {name: np.concatenate([np.zeros((1, 3, H)), value[:-1]]) for name, value in layer.items()}["hidden"]
        if run.config.cell in ("mlp", "rnn"):
            assert set(layer) == {"hidden"}
            continue
        w_h = weights[f"layers.{number}.w_h"]
        part = lambda k, h, x=x, w_h=w_h: x[..., k * H : (k + 1) * H] + h @ w_h[:, k * H : (k + 1) * H]
        if run.config.cell == "lstm":
            expected = {"input": sigma(part(0, before)), "forget": sigma(part(1, before)), "candidate": np.tanh(part(2, before)),
                        "output": sigma(part(3, before))}
        else:
            r = sigma(part(0, before))
            inner = (part(2, r * before) if run.config.gru_reset == "before" else
                     x[..., 2 * H :] + r * (before @ w_h[:, 2 * H :] + weights[f"layers.{number}.b_h"]))
            expected = {"reset": r, "update": sigma(part(1, before)), "candidate": np.tanh(inner)}
        for name, value in expected.items():
            np.testing.assert_allclose(layer[name], value, atol=1e-12)


@pytest.mark.parametrize("shape", BOTH)
def test_each_tower_is_that_of_a_run_with_its_weights_alone(shape):
    """Forward, those of a one-way run; backward, those of another one that is given the text reversed."""
    run = random_run(VERSE, **shape)
    reading, H = read(run, VERSE[:40]), run.config.hidden
    for seen, tower, half, way in ((reading, "layers.", slice(H), 1), (reading.turned(), "back.", slice(H, None), -1)):
        own = {name: value for name, value in run.weights.items() if name.startswith((tower, "embedding", "output"))}
        weights = {name.replace(tower, "layers."): value for name, value in own.items()}
        alone = dataclasses.replace(run, config=dataclasses.replace(run.config, bidirectional=False),
                                    weights=weights | {"output.w": weights["output.w"][half]})
        other = read(alone, VERSE[:40][::way])
        for layer, expected in zip(seen.layers, other.layers, strict=True):
            assert layer.keys() == expected.keys()
            for name, value in layer.items():
                np.testing.assert_array_equal(value, expected[name][::way])
    assert reading.turned().turned().layers is reading.layers
    with pytest.raises(UsageError, match="--backward"):
        read(random_run(VERSE, **SHAPES[0]), "T").turned()


@pytest.mark.parametrize("shape", BOTH)
def test_what_both_sides_expect_is_told_by_neither_the_token_nor_its_own_surprise(shape):
    run = random_run(VERSE, **shape)
    one, other = (read(run, text, alternatives=4) for text in ("Trăm năm trong", "Trăm nam trong"))
    np.testing.assert_array_equal(one.likely[6], other.likely[6])
    np.testing.assert_array_equal(one.p[6], other.p[6])
    assert all((one.p[at] != other.p[at]).any() for at in (5, 7))


def test_units_and_gates_are_taken_by_name():
    reading = read(random_run(VERSE, **SHAPES[0]), "Trăm năm")
    np.testing.assert_array_equal(reading.unit("2:7"), reading.layers[1]["hidden"][:, 6])
    np.testing.assert_array_equal(reading.unit("1:c1"), reading.layers[0]["memory"][:, 0])
    np.testing.assert_allclose(reading.gate("forget"), reading.layers[1]["forget"].mean(axis=1))
    np.testing.assert_allclose(reading.gate("1:input"), reading.layers[0]["input"].mean(axis=1))
    for take, name, says in ((reading.unit, "3:1", "no layer 3"), (reading.unit, "2:8", "2:1 to 2:7"), (reading.unit, "x", "no layer x"),
                             (reading.unit, "1:c", "1:c7"), (reading.gate, "update", "input, forget, output"), (reading.gate, "0:input",
                                                                                                             "no layer 0")):
        with pytest.raises(UsageError, match=says):
            take(name)
    with pytest.raises(UsageError, match="it has none"):
        read(random_run(VERSE, **SHAPES[4]), "Trăm").gate("forget")
    with pytest.raises(DataError, match="empty"):
        read(reading.run, "")


SPOKEN = 'He said: "It is 12." Then (as ever) they went.\nAnd she: "No, 7 or 8!"\n' * 20


def test_features_are_what_a_reader_sees():
    shown = lambda feature, text: "".join(str(int(value)) for value in units.FEATURES[feature](text))
    assert shown("inside quotes", 'a "b c" d “e\n\nf') == "001111000011100"
    assert shown("inside brackets", "a(b[c]d)e") == "011111100"
    assert shown("place in the line", "ab\nc\n\nde") == "12010012"
    assert shown("place in the word", "ab, cd") == "120012"
    assert shown("after a newline", "a\nb") == "010"
    assert shown("a digit", "a1²x") == "0110" and shown("a capital letter", "aÉ") == "01" and shown("a space", " a") == "10"


def test_planted_units_are_found_and_scored_on_the_other_half():
    reading = read(random_run(SPOKEN, cell="gru", layers=1, hidden=6, embedding=0), SPOKEN)
    hidden, noise = reading.layers[0]["hidden"], np.random.default_rng(0).normal(size=(len(reading.ids), 6)) / 10
    hidden[:] = noise
    hidden[:, 2] -= units.quoted(SPOKEN)
    hidden[:, 4] += units.FEATURES["place in the line"](SPOKEN)
    half = len(hidden) // 2
    hidden[:half, 5] += 5 * units.FEATURES["a digit"](SPOKEN)[:half]  # tracks it in the first half alone
    found = units.find(reading)
    first = {row["tracks"]: row for row in reversed(found)}
    assert first["inside quotes"]["unit"] == "1:3" and first["inside quotes"]["accuracy"] > 0.99
    assert first["inside quotes"]["correlation"] < -0.9 and -0.9 < first["inside quotes"]["threshold"] < -0.1
    assert first["place in the line"]["unit"] == "1:5" and first["place in the line"]["correlation"] > 0.99
    assert first["a digit"]["unit"] == "1:6" and abs(first["a digit"]["accuracy"] - 0.5) < 0.1
    assert abs(first["a digit"]["correlation"]) < 0.2
    with pytest.raises(DataError, match="200 tokens"):
        units.find(read(reading.run, "No, 7"))


def test_the_best_threshold_is_the_best_of_all():
    rng = np.random.default_rng(3)
    for _ in range(50):
        values, feature = rng.integers(5, size=20) / 4, rng.integers(2, size=20).astype(float)
        feature[:2] = 0, 1
        edge, accuracy = units.threshold(values, feature)
        assert accuracy == pytest.approx(units.balanced(values, feature, edge))
        assert accuracy == pytest.approx(max(units.balanced(values, feature, at) for at in (-1, *np.unique(values))))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    run = random_run(SPOKEN, **SHAPES[0])
    folder = tmp_path_factory.mktemp("inside")
    checkpoint.save_model(Reading(checkpoint.Run(**{**run.__dict__, "path": folder}), *[None] * 6).run)
    return folder


def command(*arguments, **more):
    return subprocess.run([sys.executable, "-m", "charrnn", "inspect", *map(str, arguments)], capture_output=True, timeout=60, text=True,
                          encoding="utf-8", **more)


def test_the_command_in_a_pipe_and_as_json(saved):
    plain = command(saved, "--text", "-", input="No,\n\x1b")
    assert [line.split("\t")[1] for line in plain.stdout.splitlines()] == ["N", "o", ",", "␊", "␛"] and "never seen" in plain.stderr
    found = json.loads(command(saved, "--text", "No, 7", "--unit", "2:c3", "--json").stdout)
    assert [token["text"] for token in found["tokens"]] == list("No, 7") and set(found["tokens"][0]) == {"text", "nats", "value"}
    assert found["nats"] == pytest.approx(sum(token["nats"] for token in found["tokens"]))
    units_found = json.loads(command(saved, "--text", "-", "--find", "--json", input=SPOKEN).stdout)["units"]
    assert {"tracks", "unit", "correlation"} <= set(units_found[0])
    assert "told right" in command(saved, "--text", "-", "--find", input=SPOKEN).stdout
    assert "2:forget" not in command(saved, "--text", "x", "--gate", "2:forget").stderr
    for wrong in (["--find"], ["--unit", "1:1"], ["--text", "a", "--find", "--gradients"], ["--text", "a", "--gate", "reset"],
                  ["--text", "a", "--gate", ""], ["--text", "a", "--unit", ""], ["--text", "a", "--backward", "--gradients"]):
        refused = command(saved, *wrong)
        assert refused.returncode == 2 and refused.stderr.count("\n") == 1 and refused.stdout == ""


def test_of_a_long_text_as_much_is_looked_at_as_can_be_held(saved, monkeypatch, capsys):
    monkeypatch.setattr(looking, "SHORTEST", 3)
    for most, left in ((14 * 9, 9), (1, 3)):  # 14 units: 2 layers of 7
        monkeypatch.setattr(looking, "MOST", most)
        monkeypatch.setattr("sys.argv", ["charrnn", "inspect", str(saved), "--text", SPOKEN])
        with pytest.raises(SystemExit):
            main()
        said = capsys.readouterr()
        assert "".join(line.split("\t")[1] for line in said.out.splitlines()) == SPOKEN[:left].replace("\n", "␊")
        assert said.err.count("\n") == 1 and f"the first {left} of {len(SPOKEN):,} characters" in said.err


def test_on_a_terminal_characters_have_colours_and_control_characters_do_nothing(saved):
    terminal, other = pty.openpty()
    environment = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "FORCE_COLOR")}
    subprocess.run([sys.executable, "-m", "charrnn", "inspect", str(saved), "--text", "No,\n\x1b]0;t\x07 7"], stdout=other, timeout=60,
                   stderr=subprocess.DEVNULL, check=True, env={**environment, "TERM": "xterm-256color", "COLORTERM": "truecolor"})
    os.close(other)
    said = b""
    while True:
        try:
            block = os.read(terminal, 65536)
        except OSError:
            break
        if not block:
            break
        said += block
    os.close(terminal)
    text = said.decode()
    assert "48;2;" in text and "␊" in text and "␛" in text and "\x1b]0" not in text and "nats for 12 tokens" in text
