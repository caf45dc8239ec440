"""What is measured: the shapes, how often, and the targets that the figures are held to."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from charrnn.cells import GATES
from charrnn.recipe import embedding

VOCABULARY = 65
CELLS = ("lstm", "gru", "rnn")


@dataclass(frozen=True)
class Shape:
    """H hidden units, L layers, B rows, T steps of a window; `target`: how many times faster than plain PyTorch it should be."""

    cell: str
    hidden: int
    layers: int = 1
    rows: int = 1
    window: int = 1
    target: float | None = None
    vocabulary: int = VOCABULARY

    @property
    def embedding(self) -> int:
        """E as charrnn chooses it, which is what both sides get."""
        return embedding(self.vocabulary, self.hidden)

    @property
    def size(self) -> str:
        return f"H {self.hidden} L {self.layers}"

    @property
    def name(self) -> str:
        return f"{self.cell} {self.size} B {self.rows} T {self.window}"

    @property
    def flops(self) -> float:
        """Of one training step as torch.nn's modules do it: forward, and twice as much backward; two for each weight used."""
        inputs = self.embedding + (self.layers - 1) * self.hidden
        weights = (inputs + self.layers * self.hidden) * GATES[self.cell] * self.hidden + self.hidden * self.vocabulary
        return 3.0 * 2.0 * self.rows * self.window * weights

    @property
    def bytes_a_token(self) -> int:
        """Of float32 weights that one step of one stream has to read; of the first layer's input table it is a single row."""
        H, width = self.hidden, GATES[self.cell] * self.hidden
        return 4 * (self.layers * H * width + (self.layers - 1) * (H + 1) * width + width + (H + 1) * self.vocabulary)


def for_cells(shape: Shape, targets: tuple[float | None, ...] = (None, None, None)) -> list[Shape]:
    return [replace(shape, cell=cell, target=target) for cell, target in zip(CELLS, targets)]


TRAIN = [
    *for_cells(Shape("", 512, 1, 128, 128), (2.1, 2.1, 2.5)), *for_cells(Shape("", 512, 2, 64, 100), (1.5, 1.6, 1.8)),
    *for_cells(Shape("", 256, 2, 64, 100), (1.5, 1.6, 1.8)), *for_cells(Shape("", 128, 2, 50, 50), (1.3, 2.5, 2.0)),
    *for_cells(Shape("", 256, 1, 32, 64)),  # what `charrnn train` takes for a text of a million characters
]
BUSY = [*for_cells(Shape("", 512, 1, 128, 128)), *for_cells(Shape("", 128, 2, 50, 50))]
SAMPLE = [Shape("lstm", 512, 2, target=25), Shape("gru", 512, 2, target=2.5), Shape("lstm", 256, 1), Shape("gru", 256, 1)]
STARTS = ("help", "sample", "train", "import torch")
LEVELS = ("char", "byte", "word", "subword")


@dataclass(frozen=True)
class Settings:
    """How much is measured. A turn is what one side does before it is another's turn: one step that is not counted, then at least
    `steps` and at least `seconds`."""

    train: tuple[Shape, ...] = tuple(TRAIN)
    busy: tuple[Shape, ...] = tuple(BUSY)
    sample: tuple[Shape, ...] = tuple(SAMPLE)
    rounds: int = 5
    steps: int = 2
    seconds: float = 0.5
    streams: int = 64
    starts: tuple[str, ...] = STARTS
    start_rounds: int = 5
    memory: Shape = Shape("lstm", 256)
    memory_tokens: int = 100_000
    score: Shape = Shape("lstm", 512)
    score_characters: int = 1_115_394  # of tiny Shakespeare
    trained_steps: int = 400  # of the small model on which scoring in rows and in a single pass are compared
    passes: int = 100_000  # characters that both read
    read_bytes: int = 20_000_000
    levels: tuple[str, ...] = LEVELS
    large_bytes: int = 1_000_000_000

    def as_json(self) -> dict[str, Any]:
        """The numbers alone; the shapes stand in the results."""
        return {name: value for name, value in vars(self).items() if isinstance(value, int | float)}


QUICK = Settings(
    train=tuple(shape for shape in TRAIN if (shape.hidden, shape.layers) in ((512, 1), (128, 2))),
    busy=tuple(shape for shape in BUSY if shape.layers == 2), sample=tuple(SAMPLE[:2]), rounds=3, steps=1, seconds=0.3, start_rounds=1,
    memory_tokens=30_000, score_characters=200_000, trained_steps=150, passes=30_000, read_bytes=5_000_000, levels=("char", "byte", "word"))
