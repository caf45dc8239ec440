"""Gaps: what may stand in them, and candidates against all there are."""

import itertools
import json
import unicodedata

import numpy as np
import pytest
import torch
from conftest import VERSE

from charrnn import filling
from charrnn.checkpoint import Run
from charrnn.cli import main
from charrnn.config import FillingConfig, ModelConfig, TrainingConfig
from charrnn.errors import UsageError
from charrnn.filling import NEAR, Tower, fill
from charrnn.gaps import Alphabet, Gap, lengths, parts
from charrnn.model import Model
from charrnn.tokenizer import build


def made(text, tmp_path, level="char", bidirectional=False, scale=2.0, seed=0):
    """A run with weights that mean nothing, but are large enough to prefer."""
    tokenizer = build(level, lambda: [text], None if level in ("char", "byte") else 320)
    config = ModelConfig(cell="gru", layers=2, hidden=8, embedding=5, vocabulary=tokenizer.size, bidirectional=bidirectional)
    model = Model(config, torch.Generator().manual_seed(seed))
    for weight in model.parameters():
        weight.data *= scale
    weights = {name: value.astype(np.float64) for name, value in model.weights().items()}
    return Run(tmp_path, config, TrainingConfig(level=level), tokenizer, weights, np.ones(tokenizer.size, np.int64),
               (np.zeros(0, np.uint64), 0), {}, {})


def log_p(run, text):
    """ln p of each token of a text (N), given those before it."""
    model = Model(run.config).double()
    model.load(run.weights)
    ids = torch.from_numpy(run.tokenizer.encode(text)).long()[:, None]
    end = torch.tensor([[run.config.vocabulary]])
    with torch.no_grad():
        logits, _ = model(torch.cat([end, ids[:-1]]), model.zero_state(1))
    return torch.log_softmax(logits[:, 0], 1)[torch.arange(len(ids)), ids[:, 0]].numpy()


@pytest.mark.parametrize("text, length, expected", [
    ("a_b", None, ["a", Gap(1, 1), "b"]), ("__", None, ["", Gap(2, 2), ""]), ("a_ __", "3-5", ["a", Gap(3, 5), " ", Gap(3, 5), ""]),
])
def test_runs_of_marks_are_gaps(text, length, expected):
    assert parts(text, "_", length) == expected


@pytest.mark.parametrize("wrong", ["", "0", "5-3", "x", "1-999", "3-"])
def test_wrong_lengths_are_refused(wrong):
    with pytest.raises(UsageError, match="--length"):
        lengths(wrong)


@pytest.mark.parametrize("text, mark", [("no gap", "_"), ("a_b", "__")])
def test_a_text_without_a_gap_is_refused(text, mark):
    with pytest.raises(UsageError):
        parts(text, mark)


@pytest.mark.parametrize("level", ["char", "byte", "word", "subword"])
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_what_encodes_a_text_may_stand_in_a_gap_of_its_length(level, form):
    """Token by token, each is allowed, and at the end nothing is left or owed; one character less room refuses it."""
    text = unicodedata.normalize(form, VERSE)
    alphabet = Alphabet(tokenizer := build(level, lambda: [text], None if level in ("char", "byte") else 320))
    letters = sum(not unicodedata.category(character).startswith("M") for character in text)
    if level == "byte":
        letters = len(text)  # a byte does not tell that the character it begins is a mark
    for spare in (0, -1):
        room, owed, ok = np.array([letters + spare]), np.array([0]), True
        for token in tokenizer.encode(text):
            ok &= alphabet.allowed(room, owed)[0, token]
            room, owed = alphabet.after(np.array([token]), room, owed)
        assert ok == (spare == 0) and (spare or (room[0], owed[0]) == (0, 0))


def test_one_way_candidates_are_weighed_as_all_there_are(tmp_path):
    """Two gaps, a beam wide enough for everything: shares are those of ln p of every possible text."""
    run = made("abcd ", tmp_path)
    found = fill(run, "ab_ca__d", FillingConfig(count=1000, width=1000))
    every = {}
    for letters in itertools.product("abcd ", repeat=3):
        text = f"ab{letters[0]}ca{''.join(letters[1:])}d"
        every[text] = log_p(run, text)[2:].sum()
    assert len(found) == len(every) == 125
    total = np.logaddexp.reduce(list(every.values()))
    for one in found:
        score = every["".join(one.pieces)]
        assert one.log_probability == pytest.approx(score, abs=1e-9) and one.share == pytest.approx(np.exp(score - total), abs=1e-9)
    assert [one.share for one in found] == sorted((one.share for one in found), reverse=True)


def test_free_lengths_compete_by_what_the_whole_text_costs(tmp_path):
    run = made("abc", tmp_path)
    found = fill(run, "ab_c", FillingConfig(count=1000, width=1000, length="1-3"))
    every = {f"ab{''.join(letters)}c" for size in (1, 2, 3) for letters in itertools.product("abc", repeat=size)}
    assert {"".join(one.pieces) for one in found} == every
    best = max(every, key=lambda text: log_p(run, text)[2:].sum())
    assert "".join(found[0].pieces) == best


def one_tower(run, text, backward):
    """ln p of each token of a text (N), by one tower alone."""
    model = Model(run.config).double()
    model.load(run.weights)
    ids = torch.from_numpy(run.tokenizer.encode(text)).long()[:, None]
    ids = ids.flip(0) if backward else ids
    size, w = run.config.hidden, model.output["w"]
    with torch.no_grad():
        hidden, _ = model.hidden(torch.cat([torch.tensor([[run.config.vocabulary]]), ids[:-1]]), model.zero_state(1), backward=backward)
        logits = hidden @ (w[size:] if backward else w[:size]) + model.output["b"]
    found = torch.log_softmax(logits[:, 0], 1)[torch.arange(len(ids)), ids[:, 0]].numpy()
    return found[::-1] if backward else found


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_both_ways_candidates_are_judged_by_both_towers(seed, tmp_path):
    """Shares among all there are: the mean of ln p of what follows the first gap, and of what stands before the last one."""
    run = made("abcd ", tmp_path, bidirectional=True, seed=seed)
    found = fill(run, "ab__ca_d", FillingConfig(count=1000, width=1000))
    every = {}
    for letters in itertools.product("abcd ", repeat=3):
        text = f"ab{''.join(letters[:2])}ca{letters[2]}d"
        every[text] = (one_tower(run, text, False)[2:].sum() + one_tower(run, text, True)[:7].sum()) / 2
    assert len(found) == len(every) == 125
    total = np.logaddexp.reduce(list(every.values()))
    for one in found:
        score = every["".join(one.pieces)]
        assert one.log_probability == pytest.approx(score, abs=1e-9) and one.share == pytest.approx(np.exp(score - total), abs=1e-9)


def test_a_narrow_beam_from_the_right_finds_what_the_left_alone_would_miss(tmp_path):
    run = made("abcdefgh ", tmp_path, bidirectional=True, scale=3.0)
    best = [fill(run, "abcd___gh e", FillingConfig(width=width))[0].log_probability for width in (2, 1000)]
    forward, backward = (Tower(run, parts("abcd___gh e"), backward=way).proposed(FillingConfig(width=2)) for way in (False, True))
    assert len(forward) == 2 and best[0] <= best[1] + 1e-9 and set(backward) != set(forward)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_far_text_is_read_once_and_candidates_are_read_with_what_is_near(bidirectional, tmp_path, monkeypatch):
    """Against the plain form, which reads every text from its beginning (or its end) for each candidate."""
    run = made("abcd ", tmp_path, bidirectional=bidirectional)
    rng, reads, read = np.random.default_rng(0), [], filling._read
    left, right = ("".join(rng.choice(list("abcd "), 3 * NEAR)) for _ in range(2))
    monkeypatch.setattr(filling, "_read", lambda runtime, tokens: reads.append(len(tokens)) or read(runtime, tokens))
    found = fill(run, f"{left}_a_{right}", FillingConfig(count=1000, width=1000))
    assert reads == [3 * NEAR + 1] * (1 + bidirectional) and len(found) == 25
    for one in found:
        middle = f"{one.fills[0]}a{one.fills[1]}"
        if bidirectional:
            expected = (one_tower(run, left + middle + right[:NEAR], False)[3 * NEAR :].sum() +
                        one_tower(run, left[-NEAR:] + middle + right, True)[: NEAR + 3].sum()) / 2
        else:
            expected = log_p(run, left + middle + right[:NEAR])[3 * NEAR :].sum()
        assert one.log_probability == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("level", ["char", "byte", "word", "subword"])
def test_each_level_fills_the_length_asked_for_and_leaves_the_rest(level, bidirectional, tmp_path):
    run = made(VERSE, tmp_path, level, bidirectional, scale=0.7)
    for text, length in (("Trăm năm trong ___ người ____, ghét", None), ("Trăm ~ người", "2-4")):
        config = FillingConfig(width=32, length=length, gap="~" if length else "_")
        found = fill(run, text, config)
        for one in found:
            assert one.pieces[0::2] == tuple(piece for piece in parts(text, config.gap, length) if isinstance(piece, str))
            sizes = [len(word) for word in one.fills]
            assert sizes == [3, 4] if length is None else 2 <= sizes[0] <= 4
            assert "\ufffd" not in "".join(one.fills)
        assert found == fill(run, text, config)


def test_a_letter_in_a_text_of_marks_is_one_with_its_marks(tmp_path):
    run = made(unicodedata.normalize("NFD", VERSE), tmp_path, scale=0.7)
    for one in fill(run, "Trong ___ ta", FillingConfig(width=64)):
        assert sum(not unicodedata.combining(character) for character in one.fills[0]) == 3


def test_at_word_level_a_gap_within_a_word_is_refused_in_one_line(tmp_path):
    run = made(VERSE, tmp_path, "word")
    with pytest.raises(UsageError, match="whole word") as caught:
        fill(run, "tr__g cõi", FillingConfig())
    assert "\n" not in str(caught.value)


def test_the_command_prints_a_table_or_json(small_text, tmp_path, monkeypatch, capsys):
    import charrnn

    out = tmp_path / "run"
    list(charrnn.train(small_text, out, hidden=8, steps=2, threads=1, bidirectional=True))
    for arguments in (["Trăm ___ trong"], ["Trăm ___ trong", "--json"], ["Tra\u0306m ___ trong", "--json", "--count", "1"]):
        monkeypatch.setattr("sys.argv", ["charrnn", "fill", str(out), *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        assert ended.value.code == 0
        if "--json" in arguments:
            first = json.loads(said.out.splitlines()[0])
            assert set(first) == {"text", "fills", "log_probability", "share"} and first["text"].startswith("Trăm ")
            assert len(first["fills"][0]) == 3
        else:
            assert len(said.out.splitlines()) == 6 and all(len(line) <= 80 for line in said.out.splitlines())
    monkeypatch.setattr("sys.argv", ["charrnn", "fill", str(out), "漢 ~~ m", "--gap", ""])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2 and capsys.readouterr().err.count("\n") == 1
