"""SentencePiece's learning (unigram: Kudo 2018), in a process of its own: within ours no signal would be heard for as long as it takes.

This file is also that process's program, so it needs nothing of charrnn's.
"""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
from collections.abc import Iterable

QUICK = 20_000  # bytes of sentences that are learnt from before anyone could miss an answer


def learn(sentences: Iterable[str], vocab_size: int) -> bytes:
    """A model that leaves text as it is. The same sentences give the same bytes."""
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences), model_writer=model, model_type="unigram", vocab_size=vocab_size,
        hard_vocab_limit=False, byte_fallback=True, character_coverage=1.0, required_chars="\u2581",
        user_defined_symbols=["\n"], normalization_rule_name="identity", add_dummy_prefix=False,
        remove_extra_whitespaces=False, unk_id=0, bos_id=-1, eos_id=-1, pad_id=-1, num_threads=1,
        shuffle_input_sentence=False, minloglevel=3)
    return model.getvalue()


def learn_aside(sentences: Iterable[str], vocab_size: int) -> bytes:
    """The same from another process, which ends with this call, however that ends. Sentences hold no line ends."""
    data = "\n".join(sentences).encode()
    if len(data) > QUICK:
        with contextlib.suppress(OSError):
            child = subprocess.Popen([sys.executable, "-P", __file__, str(vocab_size)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                     stderr=subprocess.DEVNULL)
            try:
                assert child.stdin and child.stdout
                with contextlib.closing(child.stdout):
                    with contextlib.closing(child.stdin):
                        child.stdin.write(data)
                    model = child.stdout.read()
                if child.wait() == 0:
                    return model
            finally:
                child.kill()
                child.wait()
    return learn(data.decode().split("\n"), vocab_size)  # a small text, or what failed: to see why


if __name__ == "__main__":
    sys.stdout.buffer.write(learn(sys.stdin.buffer.read().decode().split("\n"), int(sys.argv[1])))
