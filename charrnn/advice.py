"""The curves of a run, read as an expert would."""

from __future__ import annotations

from collections.abc import Sequence

LONGER = 3  # times as long is what is proposed
APART, TAUGHT = 0.25, 0.45  # how far below validation a training loss may end; that of a model with a teacher, which drops less
Point = tuple[int, float, float]  # step, training and validation loss in nats per character


def read_curve(curve: Sequence[Point], *, unigram: float, held_out: bool, done: str, used_up: bool = False,
               taught: bool = False) -> tuple[str, str]:
    """What the losses say, in a word (see events.End) and in a sentence with what to try; empty where there is nothing to say.

    `unigram`: nats per character of guessing each token by how common it is. `used_up`: see recipe.used_up. `taught`: by another
    model, too.
    """
    if not curve or done == "":
        return "", ""
    _, training, last = curve[-1]
    best = min(validation for _, _, validation in curve)
    if min(training, best) > 0.95 * unigram and len(curve) > 2:
        return "stuck", (f"the loss stays near {unigram:.2f}, that of guessing by how common each token is: nothing was learnt of their "
                         "order. Try a lower --lr, or look at the text.")
    if not held_out:
        return "memory", "these figures are of the training text itself: they show memory, not skill."
    early = curve[max(0, len(curve) - 1 - max(1, len(curve) // 5))]
    if done == "stopped early" or last > best + 0.02 or (training < best - (TAUGHT if taught else APART) and early[2] - last < 0.01):
        return "overfits", (f"training loss {training:.2f} is far below validation {best:.2f}: the model learns the text by heart "
                            "(overfitting). More text helps most; else less --hidden or more --dropout.")
    if used_up:
        return "used up", ("the text was read as often as it teaches anything new: a longer --time would plan the same run again. What "
                           "helps is more text.")
    if early[2] - last > 0.01 and early[1] - training > 0.005:
        return "unfinished", "both losses are still falling: train longer, such as with twice the --time, or --hidden larger along with it."
    return "", ""
