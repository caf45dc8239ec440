"""The filters as laws, and the writer that never shows half of a stop text."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from charrnn import sampling
from charrnn.config import SamplingConfig
from charrnn.tokenizer import build

rows = arrays.arrays(np.float64, st.tuples(st.integers(1, 4), st.integers(1, 12)), elements=st.floats(-8, 8))


def by_hand_top_p(p, share):
    """The definition: go down the ranking until the share is reached."""
    kept, total = np.zeros_like(p), 0.0
    for token in sorted(range(len(p)), key=lambda i: (-p[i], i)):
        if total >= share * p.sum():
            break
        kept[token] = p[token]
        total += p[token]
    return kept


@given(rows, st.integers(0, 15))
def test_top_k_leaves_the_k_largest(logits, k):
    p = sampling.softmax(logits)
    kept = sampling.top_k(p, k)
    for row, left in zip(p, kept):
        assert (left > 0).sum() == (min(k, len(row)) or len(row))
        assert left[left > 0].min() >= row[left == 0].max(initial=0)


@given(rows, st.floats(0.01, 0.99))
def test_top_p_is_its_definition(logits, share):
    p = sampling.softmax(logits)
    for row, left in zip(p, sampling.top_p(p, share)):
        assert np.array_equal(left, by_hand_top_p(row, share)) or abs(np.abs(left - by_hand_top_p(row, share)).sum() - share) < 1e-9


@given(rows, st.floats(0.01, 1))
def test_min_p_measures_against_the_most_likely(logits, share):
    p = sampling.softmax(logits)
    kept = sampling.min_p(p, share)
    assert np.array_equal(kept > 0, p >= share * p.max(axis=1, keepdims=True))


@given(rows)
def test_temperature_zero_is_the_most_likely_and_one_is_the_model(logits):
    zero = sampling.filtered(logits, SamplingConfig(temperature=0))
    assert (zero.argmax(axis=1) == logits.argmax(axis=1)).all() and (zero.max(axis=1) == 1).all()
    np.testing.assert_allclose(sampling.filtered(logits, SamplingConfig(temperature=1)), sampling.softmax(logits), atol=1e-12)


@given(rows, st.floats(0, 1, exclude_max=True))
def test_draw_is_the_inverse_of_the_distribution_and_never_the_impossible(logits, uniform):
    p = sampling.top_k(sampling.softmax(logits), 2)
    p /= p.sum(axis=1, keepdims=True)
    tokens = sampling.draw(p, np.full(len(p), uniform))
    rising = p.cumsum(axis=1)
    for row, token, line in zip(p, tokens, rising):
        assert row[token] > 0
        assert line[token] >= uniform - 1e-12 and line[token] - row[token] <= uniform + 1e-12


def test_draw_follows_the_probabilities():
    p = np.array([[0.1, 0.0, 0.6, 0.3]]).repeat(20_000, axis=0)
    counts = np.bincount(sampling.draw(p, np.random.default_rng(0).random(20_000)), minlength=4) / 20_000
    np.testing.assert_allclose(counts, p[0], atol=0.015)


def test_repetition_penalty_makes_seen_tokens_less_likely_whatever_their_sign():
    logits = np.array([2.0, -2.0, 1.0])
    out = sampling.penalised(logits, np.array([0, 1, 1]), 2.0)
    assert out.tolist() == [1.0, -4.0, 1.0] and logits.tolist() == [2.0, -2.0, 1.0]


@pytest.mark.parametrize("text, stops, expected, found", [
    ("one. two", (".",), "one", "."),
    ("aab", ("aab",), "", "aab"),
    ("aaab", ("aab",), "a", "aab"),
    ("no end", ("ending",), "no end", None),
    ("x ENDS y", ("END", "x ENDS"), "x ", "END"),
    ("abc", ("c", "bc"), "a", "bc"),
])
def test_writer_stops_before_the_stop_text(text, stops, expected, found):
    tokenizer = build("char", lambda: [text + "".join(stops)])
    writer = sampling.Writer(tokenizer, stops)
    out = ""
    for token in tokenizer.encode(text):
        out += writer.feed(int(token))
        assert expected.startswith(out)
        if writer.stopped:
            break
    assert out + writer.finish() == expected and writer.stopped == found


@given(st.text(alphabet="ab", max_size=30), st.lists(st.text(alphabet="ab", min_size=1, max_size=4), min_size=1, max_size=3))
def test_writer_gives_what_stands_before_the_first_stop(text, stops):
    tokenizer = build("char", lambda: ["ab"])
    writer, out = sampling.Writer(tokenizer, stops), ""
    for token in tokenizer.encode(text):
        out += writer.feed(int(token))
        if writer.stopped is not None:
            break
    out += writer.finish()
    ends = [(text.find(stop) + len(stop), text.find(stop)) for stop in stops if stop in text]
    if not ends:
        assert out == text
    else:  # the stop text that is complete first ends it; of two that end together, the longer
        assert out == text[: min(ends)[1]]
