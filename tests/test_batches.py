"""Windows of text: laid end to end, the rows are the text."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charrnn.batches import Batches, fit


class Counting:
    """A text whose token at place i is i."""

    def __init__(self, count):
        self.count = count

    def read(self, start, stop):
        return np.arange(start, stop)


def epoch(batches, number):
    steps = batches.steps_per_epoch
    return [batches[step] for step in range(number * steps, (number + 1) * steps)]


@given(count=st.integers(1, 300), batch=st.integers(1, 40), window=st.integers(1, 90), number=st.integers(0, 3))
def test_an_epoch_reads_each_row_through_and_the_rows_are_the_text(count, batch, window, number):
    batch, window = fit(count, batch, window)
    batches = Batches(Counting(count), start=count, batch=batch, window=window, seed=7)
    windows = epoch(batches, number)
    targets = np.concatenate([w.targets for w in windows])
    inputs = np.concatenate([w.inputs for w in windows])
    assert targets.shape == (batches.length, batch)
    along = targets.T.ravel()  # row after row
    assert np.array_equal(np.diff(along) % count, np.ones(len(along) - 1, int) % count)
    assert np.array_equal(inputs[1:], targets[:-1])
    assert (inputs[0] == count).all()
    assert [w.fresh for w in windows] == [True] + [False] * (len(windows) - 1)
    assert len({len(w.targets) for w in windows}) <= 2 and max(len(w.targets) for w in windows) <= window


def test_one_row_reads_the_text_from_its_beginning_in_every_epoch():
    batches = Batches(Counting(5), start=5, batch=1, window=64)
    for number in range(3):
        (window,) = epoch(batches, number)
        assert window.inputs[:, 0].tolist() == [5, 0, 1, 2, 3] and window.targets[:, 0].tolist() == [0, 1, 2, 3, 4]


def test_epochs_begin_at_different_places_and_the_same_step_is_always_the_same():
    batches = Batches(Counting(1000), start=1000, batch=3, window=50, seed=1)
    first, second = batches[0], batches[batches.steps_per_epoch]
    assert not np.array_equal(first.targets, second.targets)
    assert np.array_equal(first.targets, batches[0].targets)
    assert not np.array_equal(first.targets, Batches(Counting(1000), start=1000, batch=3, window=50, seed=2)[0].targets)


@pytest.mark.parametrize("tokens, asked, expected", [(5, (32, 64), (1, 5)), (1000, (32, 64), (15, 64)), (10**6, (32, 64), (32, 64)),
                                                     (1, (9, 9), (1, 1))])
def test_a_short_text_shrinks_batch_and_window(tokens, asked, expected):
    assert fit(tokens, *asked) == expected
