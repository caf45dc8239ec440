"""Let a model write."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from charrnn import screen
from charrnn.commands.arguments import Json, RunArgument
from charrnn.commands.streams import Writer, known
from charrnn.config import FillingConfig, SamplingConfig
from charrnn.errors import DataError, UsageError
from charrnn.options import from_fields


@from_fields(SamplingConfig)
def sample(run: RunArgument, *,
           novelty: Annotated[bool, typer.Option("--novelty", help="Say how much of it is copied from the training text.")] = False,
           dynamic: Annotated[bool, typer.Option("--dynamic", help="First let the model learn from the prompt, which may be a whole file: "
                                                 "it then writes more in its manner.")] = False,
           raw: Annotated[bool, typer.Option("--raw", help="Let a terminal obey control characters in the text; by default it shows "
                                             "them. A pipe always gets the text as it is.")] = False,
           json: Json = False, given: dict[str, Any]) -> None:
    """Write text with a trained model."""
    from charrnn import checkpoint
    from charrnn.sampling import generate

    config = SamplingConfig(**given)
    model = checkpoint.load(run)
    notes: list[str] = []
    prompt = known(config.prompt, model.tokenizer, notes)
    if dynamic:
        model = learnt(model, prompt)
    pieces = generate(model, config, prompt)
    screen.warn(*notes)
    texts = [""] * config.count
    ends: list[dict[str, Any]] = [{}] * config.count
    write = Writer(sys.stdout, raw)
    if not json:
        write(prompt)
    for piece in pieces:
        texts[piece.sample] += piece.text
        ends[piece.sample] = piece.end or {}
        if piece.sample == 0 and not json:  # the first one streams, the others wait for their turn
            write(piece.text)
    copied = _copied(model, texts) if novelty else [{}] * len(texts)
    if json:
        for text, end, more in zip(texts, ends, copied):
            screen.json_line({"prompt": prompt, "text": text, **end, **more})
        return
    write.end_line()
    for text in texts[1:]:
        write("\n" + prompt + text)
        write.end_line()
    if novelty:
        for more in copied:
            screen.novelty_line(more)


def learnt(model: Any, prompt: str) -> Any:
    """The model after it has learnt from the prompt. Only this way of sampling needs torch."""
    from charrnn import machine

    if not prompt:
        raise UsageError("--dynamic: there is no prompt to learn from; give one with --prompt TEXT, or a file: --prompt - < FILE")
    machine.prepare()
    from charrnn import kernels
    from charrnn.dynamic import adapted

    kernels.use_threads(None)
    return adapted(model, prompt, progress=screen.Progress("learning from the prompt"))


def _copied(run: Any, texts: list[str]) -> list[dict[str, Any]]:
    """What each text has of the training text; null and a line on stderr where that is not at hand."""
    from charrnn.novelty import copies

    try:
        known_text = copies(run)
    except DataError as error:
        screen.warn(f"--novelty: {error}")
        return [{"longest_copy": None, "copied_share": None}] * len(texts)
    return [known_text.of(text) for text in texts]


@from_fields(FillingConfig)
def fill(run: RunArgument,
         text: Annotated[str, typer.Argument(metavar="TEXT", show_default=False, help="The text with its gaps, or - for stdin.")], *,
         json: Json = False, given: dict[str, Any]) -> None:
    """Fill the gaps of a text, such as 'the time ___ by H. G. ____', from what stands on both sides of them."""
    from charrnn import checkpoint
    from charrnn.filling import fill as candidates
    from charrnn.gaps import check

    config = FillingConfig(**given)
    check(config.gap)
    model = checkpoint.load(run)
    notes: list[str] = []
    found = candidates(model, known(text, model.tokenizer, notes, "the text", mark=config.gap), config)
    screen.warn(*notes)
    if json:
        for one in found:
            screen.json_line(one.as_json())
    else:
        screen.filling_table((one.pieces, one.log_probability, one.share) for one in found)
