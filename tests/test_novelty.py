"""What is copied, against a search for every piece; the index, against a sort of all suffixes; where the text is found again."""

import dataclasses
import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest
from conftest import VERSE
from hypothesis import given, settings
from hypothesis import strategies as st
from small import SHAPES, random_run

import charrnn
import charrnn.checkpoint
from charrnn import novelty, screen
from charrnn.errors import DataError
from charrnn.novelty import COPIED, DEPTH, Copies
from charrnn.tokens import code_points


def by_hand(text, sample):
    """The longest run and the share, by looking for every piece."""
    runs = [max(n for n in range(len(sample) - at + 1) if sample[at : at + n] in text) for at in range(len(sample))]
    covered = {at + k for at, n in enumerate(runs) if n >= COPIED for k in range(n)}
    return max(runs, default=0), len(covered) / len(sample) if sample else 0.0


@settings(deadline=None)
@given(st.text("ab", max_size=40), st.text("abc", max_size=30), st.integers(0, 300), st.integers(0, 80))
def test_copies_are_those_that_a_search_finds(text, sample, start, repeats):
    text += VERSE + "ab" * repeats
    sample += text[start : start + 90] + "ba" * (repeats // 2) + sample
    found, (longest, share) = Copies(text).of(sample), by_hand(text, sample)
    assert len(found["longest_copy"]) == longest and found["longest_copy"] in text and found["longest_copy"] in sample
    assert found["copied_share"] == pytest.approx(share)


@given(st.text("ab\u1ec7\U0001f600", min_size=1, max_size=300))
def test_suffixes_are_sorted(text):
    order = novelty.suffixes(code_points(text))
    heads = [text[at : at + DEPTH] for at in order]
    assert sorted(order.tolist()) == list(range(len(text))) and heads == sorted(heads)


def test_nothing_is_copied_from_nothing_and_everything_from_oneself(capsys):
    assert Copies("abc").of("") == {"longest_copy": "", "copied_share": 0.0}
    assert Copies("abc").of("xyz") == {"longest_copy": "", "copied_share": 0.0}
    screen.novelty_line(Copies("abc").of("xyz"))
    assert capsys.readouterr().err == "novelty: nothing of it stands in the training text\n"
    assert Copies(VERSE).of(VERSE) == {"longest_copy": VERSE, "copied_share": 1.0}
    assert Copies("a" * 5000).of("a" * 3000) == {"longest_copy": "a" * 3000, "copied_share": 1.0}


@pytest.mark.parametrize("level", ["char", "byte", "word", "subword"])
def test_the_training_text_is_found_in_the_cache_then_by_its_digest(level, tmp_path, monkeypatch):
    text = tmp_path / "verse.txt"
    text.write_text(VERSE * 18, encoding="utf-8")
    for _ in charrnn.train(text, tmp_path / "run", level=level, hidden=4, steps=2, threads=1,
                           **({"vocab_size": 300} if level in ("word", "subword") else {})):
        pass
    run = charrnn.load(tmp_path / "run")
    learnt = (VERSE * 18)[: run.text["training_characters"]]
    rest = (VERSE * 18)[len(learnt) :]
    assert rest and novelty.parts(run) == (learnt, rest)
    first, again = novelty.copies(run), novelty.copies(run)
    assert first.text == again.text == learnt
    np.testing.assert_array_equal(first.order, again.order)
    for longest in (len(learnt) - 3, 100):  # of a text that is too long the beginning is looked at
        with monkeypatch.context() as patch:
            patch.setattr(novelty, "LONGEST", longest)
            head, after = novelty.parts(run)
            assert len(head) > longest / 4 and learnt.startswith(head[:-1]) and after == rest and len(novelty.copies(run).text) <= longest
    monkeypatch.setenv("CHARRNN_CACHE", str(tmp_path / "empty"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"data/verse\.txt"):
        novelty.copies(run)
    monkeypatch.setenv("CHARRNN_CORPORA", str(tmp_path))
    assert novelty.copies(run).text == learnt and novelty.parts(run) == (learnt, rest)
    text.write_text(VERSE * 17, encoding="utf-8")
    with pytest.raises(DataError, match=run.text["digest"][:12]):
        novelty.parts(run)


def test_the_command(tmp_path):
    run = random_run(VERSE, **SHAPES[1])
    facts = {**run.text, "name": "verse", "digest": hashlib.sha256(VERSE.encode()).hexdigest()}
    charrnn.checkpoint.save_model(dataclasses.replace(run, path=tmp_path, text=facts))
    sample = [sys.executable, "-m", "charrnn", "sample", str(tmp_path), "--novelty", "--length", "30", "--count", "2"]
    absent = subprocess.run([*sample, "--json"], cwd=tmp_path, capture_output=True, text=True, encoding="utf-8", timeout=60)
    assert json.loads(absent.stdout.splitlines()[0])["copied_share"] is None and absent.stderr.count("not at hand") == 1
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "verse.txt").write_text(VERSE, encoding="utf-8")
    present = subprocess.run([*sample, "--json"], cwd=tmp_path, capture_output=True, text=True, encoding="utf-8", timeout=60)
    rows = [json.loads(line) for line in present.stdout.splitlines()]
    assert present.stderr == "" and all(row["longest_copy"] in VERSE and row["longest_copy"] in row["text"] for row in rows)
    shown = subprocess.run(sample, cwd=tmp_path, capture_output=True, text=True, encoding="utf-8", timeout=60)
    assert shown.stderr.count("novelty: ") == 2 and "20 characters" in shown.stderr and "novelty" not in shown.stdout
