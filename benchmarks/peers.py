"""What others reach on the last 111,540 characters of tiny Shakespeare, in nats per character."""

from __future__ import annotations

from typing import NamedTuple


class Peer(NamedTuple):
    """`minutes`: of what machine `note` says; None where that is not known."""

    name: str
    nats: float
    minutes: float | None
    note: str
    learns: bool = False  # while it is scored, as dynamic evaluation does


TEXT = "tiny_shakespeare.txt"
PEERS = (
    Peer("nanoGPT, CPU configuration", 1.886, 146 / 60, "measured on two cores; published 1.88"),
    Peer("xz -9e", 1.746, 0.02, "measured: what the held-out part adds"),
    Peer("char-rnn.pytorch", 1.721, 3, "measured on two cores, its defaults"),
    Peer("Kneser-Ney 6-gram", 1.583, 10 / 60, "measured: modified, interpolated"),
    Peer("tensorflow-char-rnn, 2 × 128", 1.576, None, "published, valid and test averaged"),
    Peer("minGRU, 3 × 384", 1.548, None, "published, GPU (Feng et al. 2024)"),
    Peer("Transformer, 3 × 384", 1.547, None, "published, GPU (the same)"),
    Peer("nanoGPT, GPU configuration", 1.4697, 3, "published, A100; windows of 256 from a zero state"),
    Peer("PPMd, order 6", 1.404, 0.05, "measured; it learns as it is scored", learns=True),
)
