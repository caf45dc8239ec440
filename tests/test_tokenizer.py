"""Tokenizers: exact for every text, in pieces as in one, and safe against damaged input."""

from __future__ import annotations

import functools
import io
import math
import os
import random
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from charrnn import pieces, subword, tokens, word
from charrnn.errors import CheckpointError, DataError, UsageError
from charrnn.tokenizer import LEVELS, Tokenizer, build, default_vocabulary

TEXT = ("Người ta thấy trong một đêm xa xăm. The time traveller’s machine didn't wait; the time\twas 12:30!\r\n"
        "me\u0323\u0302t no\u0308 \U0001f469\u200d\U0001f680 \u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645 "
        "\u4e2d\u6587\u3002 the time machine by H. G. Wells\n") * 3
# Bits that tokenizers stumble over, beside whatever hypothesis invents.
SNIPPETS = ["\u2581", "\u2585", "\0", "\n", "\r\n", " ", "  ", "\t", "\u0301", "don't", "don’t", "'", "<unk>", "<0x41>",
            "<s>", "\ufeff", "the time", "\u200d", "\u200c", "\U0001f469\u200d\U0001f680", "\u05e9\u05b8\u05dc\u05d5\u05b9\u05dd",
            "\x1b[31m", "\u202e", "\ufffd", "\ufffe", "\U0010ffff", "\u2047", "x" * 101, "y" * 1001, "z z" * 400]
texts = st.lists(st.one_of(st.text(max_size=20), st.sampled_from(SNIPPETS)), max_size=12).map("".join)
quick = settings(max_examples=150, deadline=None)


@functools.cache
def tokenizer(level: str) -> Tokenizer:
    return build(level, lambda: [TEXT])


def cut(text: str, seed: int, most: int = 7) -> list[str]:
    """The text in pieces of random lengths, empty ones among them."""
    chance, pieces = random.Random(seed), []
    while text:
        size = chance.randrange(most)
        pieces.append(text[:size])
        text = text[size:]
    return pieces


@pytest.mark.parametrize("level", LEVELS)
@given(text=texts)
@quick
def test_decoding_gives_the_text_back(level: str, text: str) -> None:
    ids = tokenizer(level).encode(text)
    assert ids.dtype == np.int32
    assert tokenizer(level).decode(ids) == text


@pytest.mark.parametrize("level", LEVELS)
@given(text=texts, seed=st.integers(0, 999))
@quick
def test_pieces_joined_are_the_whole(level: str, text: str, seed: int) -> None:
    pieces = list(tokenizer(level).encode_pieces(cut(text, seed, most=random.Random(seed).choice([3, 8, 900]))))
    assert np.array_equal(np.concatenate([[], *pieces]), tokenizer(level).encode(text))


@pytest.mark.parametrize("level", LEVELS)
@given(data=st.data())
@quick
def test_streaming_gives_the_whole_and_never_half_a_character(level: str, data: st.DataObject) -> None:
    known = tokenizer(level)
    ids = [*known.encode(data.draw(texts)).tolist(), *data.draw(st.lists(st.integers(0, known.size), max_size=20))]
    decoder = known.decoder()
    pieces = [decoder.feed(token) for token in ids] + [decoder.flush()]
    assert "".join(pieces) == known.decode(ids) == known.decode(np.array(ids, np.int32))
    for piece in pieces:
        piece.encode()  # no surrogate, so no half of anything


@given(raw=st.binary(max_size=30))
@quick
def test_bytes_that_are_not_utf8_become_replacement_characters(raw: bytes) -> None:
    assert tokenizer("byte").decode(list(raw)) == raw.decode(errors="replace")


@pytest.mark.parametrize("level", LEVELS)
@given(text=texts)
@quick
def test_the_model_sees_only_its_own_ids(level: str, text: str) -> None:
    known = tokenizer(level)
    ids = known.encode(text)
    seen = known.model_ids(ids)
    assert not len(seen) or (seen.min() >= 0 and seen.max() < known.size)
    assert np.array_equal(seen[ids < known.size], ids[ids < known.size])
    if known.escape is None:
        assert known.unknown(text) == [] and known.unknown_nats == 0
    else:
        assert known.escape == known.size - 1 and known.start == known.size
        assert (seen[ids > known.size] == known.escape).all() and not (ids == known.start).any()
        assert known.unknown(text) == list(dict.fromkeys(char for char in text if char not in set(TEXT)))


@pytest.mark.parametrize("level", ["char", "word"])
def test_characters_that_are_too_rare_have_no_symbol(level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "RARE", 1_000)
    text = "to be or not " * 230 + "\u0101\u0101 \u0101 \u0111\u0111 or \u0111be"  # 3,012 characters: at least 3 of a kind
    known = build(level, lambda: [text[:99], text[99:]])
    assert known.unknown("\u0101\u0111") == [] and known.decode(known.encode(text)) == text
    rarer = build(level, lambda: [text.replace("\u0101 ", "  ", 1)])
    assert rarer.unknown(text) == ["\u0101"] and rarer.decode(rarer.encode(text)) == text
    symbols = [rarer.symbol(token) for token in range(rarer.size)]
    assert not any("\u0101" in symbol for symbol in symbols) and any("\u0111" in symbol for symbol in symbols)


@pytest.mark.parametrize("level", ["char", "word"])
def test_an_unknown_character_is_paid_for_as_uniform_over_the_rest_of_unicode(level: str) -> None:
    known = build(level, lambda: ["abba"])
    assert known.unknown_nats == math.log(1_112_064 - 2)
    assert known.encode("cab")[0] == known.size + 1 + ord("c")
    assert known.decode([known.escape or 0]) == "\ufffd"


@pytest.mark.parametrize("level", LEVELS)
def test_restored_it_is_the_same(level: str) -> None:
    config, payload = tokenizer(level).to_bytes()
    again = Tokenizer.from_bytes(config, payload)
    assert again.digest == tokenizer(level).digest and again.size == tokenizer(level).size
    assert np.array_equal(again.encode(TEXT), tokenizer(level).encode(TEXT))
    every = range(again.size + 1)
    assert list(map(again.symbol, every)) == list(map(tokenizer(level).symbol, every))
    assert len({tokenizer(other).digest for other in LEVELS}) == len(LEVELS)


@pytest.mark.parametrize("level", LEVELS)
def test_built_twice_or_from_pieces_it_is_the_same(level: str) -> None:
    whole, again = build(level, lambda: [TEXT]), build(level, lambda: [TEXT])
    assert whole.digest == again.digest
    if level != "subword":  # which samples each piece
        assert build(level, lambda: cut(TEXT, 5)).digest == whole.digest


def test_the_title_in_words() -> None:
    title = "the time machine by H. G. Wells"
    known = build("word", lambda: [title])
    assert [known.symbol(token) for token in known.encode(title)] == re.findall(r"\w+|\W", title)
    assert known.size == len(set(title)) + 5 + 1  # the, time, machine, by, Wells; H and G are characters already


def test_words_keep_their_apostrophes_and_marks() -> None:
    assert word.split("don't 'tis dogs’ bone’s\r\n") == ["don't", " ", "'", "tis", " ", "dogs", "’", " ", "bone’s", "\r", "\n"]
    decomposed = "Vie\u0323\u0302t \u0928\u092e\u0938\u094d\u0924\u0947"
    assert word.split(decomposed) == [*decomposed.split(" ")[:1], " ", *decomposed.split(" ")[1:]]


def test_the_most_frequent_words_win_a_place_and_must_be_seen_twice() -> None:
    text = "cc bb aa " * 200 + "aa bb aa dd dd eee"
    known = build("word", lambda: [text])
    assert known.to_bytes()[0]["words"] == ["aa", "bb", "cc", "dd"]
    assert build("word", lambda: [text], 6 + 1 + 2).to_bytes()[0]["words"] == ["aa", "bb"]
    assert build("word", lambda: ["once upon"]).to_bytes()[0]["words"] == ["once", "upon"]
    with pytest.raises(UsageError, match="7 is the least"):
        build("word", lambda: [text], 6)


def test_counting_words_in_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(word, "COUNTED", 50)
    pieces = [f"often {number:04d} rarely " for number in range(400)]
    letters = "".join(sorted(set("".join(pieces))))
    assert set(word.frequent_words(word.counted(pieces), letters)[:2]) == {"often", "rarely"}
    assert len(word.frequent_words(word.counted(pieces), letters)) <= 50


def test_default_sizes() -> None:
    assert [default_vocabulary("word", count) for count in (5, 1_000_000, 10**9)] == [1_000, 2_000, 20_000]
    assert [default_vocabulary("subword", count) for count in (5, 1_000_000, 10**9)] == [512, 1_000, 8_000]
    assert default_vocabulary("char", 5) is default_vocabulary("byte", 5) is None


@pytest.mark.parametrize("text", ["hello", " ", "a", "a" * 13, "\n", "\u2585", "\u2581", "\0", "ab" * 3000, "chào bạn " * 100, "\u4e2d"])
@pytest.mark.parametrize("vocab_size", [None, 260, 300])
def test_subwords_of_the_smallest_texts(text: str, vocab_size: int | None, capfd: pytest.CaptureFixture[str]) -> None:
    known = build("subword", lambda: [text], vocab_size)
    assert known.size <= (vocab_size or 512)
    assert known.decode(known.encode(text + " x")) == text + " x"
    assert capfd.readouterr() == ("", "")  # SentencePiece says nothing


def test_subword_sizes() -> None:
    with pytest.raises(UsageError, match="260 is the least"):
        build("subword", lambda: [TEXT], 259)
    crowded = "".join(map(chr, range(0x4E00, 0x5E00))) * 2  # far more characters than symbols
    assert build("subword", lambda: [crowded], 400).size <= 400
    assert len(tokenizer("subword").encode("the time")) < len("the time")


def test_subwords_learn_from_long_lines_and_a_bounded_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    line = "the time machine " * 1000
    known = build("subword", lambda: [line])
    assert len(known.encode(line)) < len(line) / 5
    monkeypatch.setattr(subword, "SAMPLE", 1000)
    assert sum(map(len, subword.sample([line] * 5, 5 * len(line)))) == 1000


def test_long_lines_are_cut_between_words() -> None:
    units = subword.UNITS.findall("word " * 500 + "\n\n" + "x" * 1500)
    assert max(map(len, units)) <= subword.LONGEST
    assert all(unit.startswith(" ") or unit in ("\n\n", "x" * 1000, "x" * 500) for unit in units[1:])


@pytest.mark.parametrize("level", LEVELS)
def test_surrogates_are_refused(level: str) -> None:
    for known in (tokenizer(level), build(level, lambda: ["ab"])):
        with pytest.raises(DataError, match="surrogate"):
            known.encode("a\udc80b")
        with pytest.raises(DataError, match="surrogate"):
            list(known.encode_pieces(["a", "\ud800"]))


@pytest.mark.parametrize("level", LEVELS)
def test_nonsense_is_refused(level: str) -> None:
    known = tokenizer(level)
    for token in (-1, known.size + 0x110001):
        with pytest.raises(ValueError):
            known.decode([token])
    with pytest.raises(UsageError, match="syllable"):
        build("syllable", lambda: [TEXT])
    if level in ("char", "byte"):
        with pytest.raises(UsageError, match="leave it out"):
            build(level, lambda: [TEXT], 300)
    if level != "byte":
        with pytest.raises(DataError, match="empty"):
            build(level, lambda: ["", ""])


def damaged() -> Iterable[tuple[object, bytes]]:
    """Configurations that are wrong in one way each."""
    yield from ((nothing, b"") for nothing in (None, [], "char", {}, {"level": "syllable"}, {"level": ["char"]}, {"level": None}))
    for characters in ("", "ba", "aa", "a\ud800", 5, None, ["a"]):
        yield {"level": "char", "characters": characters}, b""
        yield {"level": "word", "characters": characters, "words": []}, b""
    for words in (["ab", "ab"], ["a"], ["ac"], ["a b"], ["ab", 5], [""], "ab", None, {"ab": 1}, ["a\n"], [["ab"]]):
        yield {"level": "word", "characters": " ab", "words": words}, b""
    yield {"level": "char", "characters": "ab", "more": 1}, b""
    yield {"level": "char", "characters": "ab"}, b"payload"
    yield {"level": "byte", "characters": "ab"}, b""
    yield {"level": "byte"}, b"payload"
    config, payload = tokenizer("subword").to_bytes()
    yield {"level": "subword"}, payload
    yield config, payload[:-1]
    yield config, b""


@pytest.mark.parametrize("case", list(damaged()), ids=lambda case: ascii(case)[:60])
def test_damaged_tokenizers_are_refused(case: tuple[object, bytes]) -> None:
    with pytest.raises(CheckpointError):
        Tokenizer.from_bytes(*case)


def test_other_sentencepiece_models_are_refused() -> None:
    import sentencepiece

    for change in ({"byte_fallback": False}, {"add_dummy_prefix": True}, {"normalization_rule_name": "nmt_nfkc"}, {"bos_id": 1},
                   {"remove_extra_whitespaces": True}, {"user_defined_symbols": ["x"]}):
        model = io.BytesIO()
        options = {"byte_fallback": True, "add_dummy_prefix": False, "normalization_rule_name": "identity", "bos_id": -1,
                   "user_defined_symbols": ["\n"], "remove_extra_whitespaces": False} | change
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(TEXT.split("\n")), model_writer=model, vocab_size=1000, eos_id=-1, pad_id=-1,
            hard_vocab_limit=False, minloglevel=3, num_threads=1, **options)
        with pytest.raises(CheckpointError):
            subword.SubwordTokenizer(model.getvalue())


def test_only_checked_pieces_reach_sentencepiece() -> None:
    written = io.BytesIO()
    import sentencepiece

    with pytest.MonkeyPatch.context() as patch:  # what SentencePiece itself writes, and what is made of it
        patch.setattr(subword, "pieces_of", lambda model: written.write(model) and pieces.pieces_of(model))
        known = build("subword", lambda: [TEXT])
    _, payload = known.to_bytes()
    assert payload == pieces.model_of(pieces.pieces_of(payload)) == pieces.model_of(pieces.pieces_of(written.getvalue()))
    raw, ours = (sentencepiece.SentencePieceProcessor(model_proto=model) for model in (written.getvalue(), payload))
    for text in (TEXT, *SNIPPETS, subword.PROBE):
        assert raw.encode(text) == ours.encode(text) and raw.decode(raw.encode(text)) == ours.decode(ours.encode(text))


def test_names_of_symbols() -> None:
    known = build("char", lambda: ["ab\n"])
    assert [known.symbol(token) for token in range(5)] == ["\n", "a", "b", "<escape>", "<start>"]
    assert [tokenizer("byte").symbol(token) for token in (97, 200, 256)] == ["a", "<0xC8>", "<start>"]
    assert tokenizer("subword").symbol(tokenizer("subword").start) == "<start>"


def test_a_real_text_at_every_level() -> None:
    folder = Path(os.environ.get("CHARRNN_CORPORA") or Path(__file__).parents[2] / "shared" / "corpora")
    if not (folder / "truyen_kieu.txt").is_file():
        pytest.skip("Truyện Kiều is not there: set CHARRNN_CORPORA to a folder that holds truyen_kieu.txt")
    text = (folder / "truyen_kieu.txt").read_text(encoding="utf-8")
    lengths = []
    for level in ("byte", "char", "subword", "word"):
        known = build(level, lambda: [text[:80_000]])
        ids = known.encode(text)
        assert known.decode(ids) == text
        assert np.array_equal(np.concatenate(list(known.encode_pieces(cut(text, 3, most=20_000)))), ids)
        lengths.append(len(ids))
    assert lengths[0] > lengths[1] > max(lengths[2:])


WORDLIKE = st.one_of(st.sampled_from("ab_1 '\u2019\u200d\u0323\u0302\u1ec7\n.\ue000"), st.characters(exclude_categories=["Cs"]))


@given(st.text(alphabet=WORDLIKE, max_size=60))
def test_the_fast_patterns_split_as_the_full_one_does(text):
    assert word.split(text) == word.patterns()[2].findall(text)


@pytest.mark.parametrize("alphabet", ["0123456789", "абвгдежзик", "".join(map(chr, range(0x10300, 0x1030A)))])
def test_words_without_number_still_fit_a_file(alphabet: str) -> None:
    from charrnn.container import HEADER, opened, sealed

    names = str.maketrans("0123456789", alphabet)
    words = [f"{number:012d}".translate(names) for number in range(word.MOST)]
    kept = word.fitting(alphabet, words)
    assert kept == words[: len(kept)] and len(kept) > 50_000
    file = sealed({}, {"tokenizer": word.WordTokenizer("".join(sorted(alphabet)), kept).to_bytes()[0]})
    size = int.from_bytes(file[:8], "little")
    assert size < HEADER - (2 << 20) and len(opened(bytearray(file))[1]["tokenizer"]["words"]) == len(kept)
    assert len(kept) == len(words) or size > word.WRITTEN - 1000  # no more is left out than must be


def test_a_vocabulary_is_cut_to_what_a_file_holds_and_refused_where_it_is_asked_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    text = " ".join(f"w{number}" for number in range(1000)) * 3
    whole = build("word", lambda: [text], 500)
    monkeypatch.setattr(word, "WRITTEN", 1000)
    assert (cut := build("word", lambda: [text], 500)).size < whole.size == 500
    assert cut.decode(cut.encode(text)) == text
    with pytest.raises(UsageError, match="262144 is the most"):
        build("word", lambda: pytest.fail("the text need not be read"), word.MOST + 1)
