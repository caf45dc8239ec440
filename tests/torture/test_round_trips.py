"""Every text comes back from every level, whole and in pieces, and no piece is half a character."""

import unicodedata

import numpy as np
import pytest
from conftest import cases, found
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_tokenizer import SNIPPETS, cut, tokenizer

from charrnn.errors import DataError
from charrnn.tokenizer import LEVELS

VIETNAMESE = ["Trăm", "năm", "cõi", "người ta,", "chữ mệnh", "khéo", "ghét", "Nghiêng!", "quằn quại;", "ưỡn ẹo"]
MARKS = ["\u0301", "\u0323\u0302", "\u0302\u0323", "\u20dd", "\u093f", "\u0e38", "\u200d", "\ufe0f", "\u1ab0"]
BLOCKS = ["\u2581", "\u2581\u2581", " \u2581 ", "\u2585", "<unk>", "<0x0A>", "\n\u2581", "\u2581\n"]
words = st.sampled_from(VIETNAMESE)
forms = st.sampled_from(["NFC", "NFD", "NFKC", "NFKD"])
parts = st.one_of(words, st.builds(unicodedata.normalize, forms, words), st.sampled_from(MARKS + BLOCKS + SNIPPETS), st.text(max_size=15),
                  st.characters(exclude_categories=["Cs"]))
texts = st.lists(parts, max_size=14).map("".join)
trials = settings(max_examples=cases(150, 10_000), deadline=None, suppress_health_check=list(HealthCheck), database=None)


@pytest.mark.parametrize("level", LEVELS)
def test_round_trips(level):
    known, tried = tokenizer(level), [0]

    @trials
    @given(text=texts, seed=st.integers(0, 999), more=st.lists(st.integers(0, known.size), max_size=12))
    def law(text, seed, more):
        tried[0] += 1
        ids = known.encode(text)
        assert known.decode(ids) == text
        assert np.array_equal(np.concatenate([[], *known.encode_pieces(cut(text, seed))]), ids)
        drawn = [*ids.tolist(), *more]  # what a model may write after it: any symbol, bytes that are no character among them
        decoder = known.decoder()
        pieces = [decoder.feed(token) for token in drawn] + [decoder.flush()]
        assert "".join(pieces) == known.decode(drawn)
        assert all(piece.encode() or not piece for piece in pieces)

    law()
    found(11, f"level {level}: {tried[0]:,} texts encoded and decoded, whole, in pieces and streamed: all the same")


@pytest.mark.parametrize("level", LEVELS)
@given(text=texts, half=st.integers(0xD800, 0xDFFF), place=st.integers(0, 200))
@trials
def test_halves_of_characters_are_refused(level, text, half, place):
    with pytest.raises(DataError):
        tokenizer(level).encode(text[:place] + chr(half) + text[place:])
