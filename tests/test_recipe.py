"""The rules that choose what the user left open, at their corners."""

import dataclasses
import itertools
import json

import pytest

from charrnn import recipe
from charrnn.advice import read_curve
from charrnn.config import TrainingConfig, seconds
from charrnn.optim import schedule
from charrnn.progress import Progress


def test_more_time_and_more_text_give_a_wider_model():
    widths = [recipe.hidden(10**6, time) for time in (10, 60, 180, 600, 3600)]
    assert widths == sorted(widths) and widths[0] < widths[-1]
    widths = [recipe.hidden(10**6, 180, speed) for speed in (0.1, 0.5, 1, 2, 4)]
    assert widths == sorted(widths) and widths[0] < widths[-1] and recipe.hidden(10**6, 180, 2) == recipe.hidden(10**6, 360)
    widths = [recipe.hidden(tokens, 600) for tokens in (5, 10**4, 10**5, 10**6)]
    assert widths == sorted(widths) and widths[0] < widths[-1]


def test_a_small_text_has_few_rows():
    assert [recipe.batch(tokens) for tokens in (1, 59_999, 60_000, 299_999, 300_000, 10**8)] == [8, 8, 16, 16, 32, 32]


def test_dropout_comes_with_rereading_and_with_more_weights_than_tokens():
    assert recipe.dropout(0.5, 0.1) == recipe.dropout(2, 1) == 0
    assert 0 < recipe.dropout(8, 1) < recipe.dropout(30, 1) <= recipe.dropout(10**6, 1) == 0.4
    assert recipe.dropout(8, 0.01) == recipe.dropout(8, 1) < recipe.dropout(8, 3)
    assert recipe.dropout(26, 0.3, "rnn") < 0.1 < recipe.dropout(40, 2, "rnn") < recipe.dropout(40, 2)
    assert 0 < recipe.weight_drop(40, 2, "rnn") < recipe.weight_drop(40, 2) / 2
    assert recipe.dropout(40, 6) == 0.4 < recipe.dropout(40, 9) < recipe.dropout(40, 14) < recipe.dropout(40, 30) == 0.6


def test_dropout_gives_way_where_the_text_learnt_from_costs_more_than_the_held_out_one():
    def left(*costs, births=(0,), length=100):
        return recipe.eased(0.4, [(10 * (n + 1), training, held) for n, (training, held) in enumerate(costs)], births, length)

    over, under, even = (1.0, 1.06), (1.1, 1.0), (1.03, 1.0)
    assert left() == left(under) == left(over, over, over) == left(even, even) == 0.4
    assert 0 < left(*[under] * 9) < left(*[under] * 5) < left(*[under] * 3) < 0.4
    assert left(*[under] * 4) < left(*[under] * 4, over) < 0.4 == left(*[under] * 3, *[over] * 6)
    assert left(*[under] * 4, length=50) == left(*[under] * 7, length=100), "counted in shares of a run, however often it is scored"
    assert left(*[(0.0, 0.0)] * 5) == 0.4 > left((0.1, 0.0), (0.1, 0.0)) > 0
    assert left(*[(9.0, 1.0)] * 5) == pytest.approx(0.02, rel=0.1), "never so little that it takes long to come back"
    falling = [(2.0, 1.6), (1.4, 1.2), (1.1, 1.0)]
    assert left(*falling) == 0.4, "the mean over the steps since is above what the last of them cost"
    first = [under] * 5
    assert left(*first, (2.5, 1.5), births=(0, 50)) == left(*first) == left(*first, (2.5, 1.5), (1.3, 1.0), births=(0, 50))
    assert left(*[under] * 3, births=(0, 10, 20, 30)) == 0.4


def test_recurrent_weights_are_dropped_where_a_text_is_read_often():
    assert recipe.weight_drop(0.5, 9) == recipe.weight_drop(12, 9) == 0 < recipe.weight_drop(20, 1) < recipe.weight_drop(40, 1)
    assert recipe.weight_drop(40, 0.1) == recipe.weight_drop(40, 1) < recipe.weight_drop(40, 2) < recipe.weight_drop(40, 5) == 0.3
    drop = lambda epochs, **given: recipe.plan(TrainingConfig(epochs=epochs, **given), recipe.shape(TrainingConfig(**given), 10**5, 60),
                                               10**5).weight_drop
    assert drop(40.0) > 0 == drop(40.0, dropout=0.0) == drop(40.0, cell="mlp") == drop(4.0)
    assert drop(4.0, weight_drop=0.2) == drop(4.0, weight_drop=0.2, dropout=0.0) == 0.2


def test_time_that_is_left_goes_to_further_models_that_learn_from_the_first():
    """As many as fit, all of one length; none where the text is still new, is all there is, or steps are counted."""
    def made(time, tokens=10**5, **given):
        config = TrainingConfig(time=time, **given)
        held_out = given.pop("valid", 0.1) > 0
        return recipe.plan(config, recipe.shape(config, tokens, 60), tokens, seconds_per_step=0.01, seconds_per_evaluation=0.05,
                           held_out=held_out)

    whole = 0.01 * recipe.most_steps(10**5, 16, 64)
    assert [made(f"{share * whole + 5:.0f}s").generations for share in (0.5, 1.0, 1.2, 3.6, 100)] == [1, 1, 2, 2, 2]
    assert made(f"{whole / 2:.0f}s", generations=2).steps == pytest.approx(made(f"{whole / 2:.0f}s").steps / 2.25, rel=0.1)
    assert 0.5 < made(f"{1.2 * whole + 5:.0f}s").steps / made("1h").steps < 0.6
    for alone in (made("5m", 10**8), made("1h", bidirectional=True), made("1h", valid=0.0)):
        assert alone.generations == 1
    counted = TrainingConfig(steps=50)
    assert recipe.plan(counted, recipe.shape(counted, 10**5, 60), 10**5).generations == 1
    plan = made("1h")
    assert 0 < plan.student_dropout < plan.dropout and 0 < plan.student_weight_drop < plan.weight_drop
    assert made("1h", dropout=0.2).student_dropout == 0.2 and made("1h", weight_drop=0.2).student_weight_drop == 0.2


@pytest.mark.parametrize("tokens", [1, 5, 30, 1000, 10**5, 10**8])
@pytest.mark.parametrize("given", [{}, {"time": "1s"}, {"steps": 7}, {"epochs": 0.5}, {"epochs": 3.0}])
def test_every_text_gets_a_plan(tokens, given):
    config = TrainingConfig(**given)
    model = recipe.shape(config, tokens, 60)
    plan = recipe.plan(config, model, tokens, seconds_per_step=0.01, seconds_per_evaluation=0.1)
    assert 1 <= plan.evaluate_every <= plan.steps
    assert plan.batch * plan.window <= max(tokens, 1)
    if "steps" in given:
        assert plan.steps == 7


@pytest.mark.parametrize("scoring", [0.1, 1.0, 10.0])
def test_time_is_spent_on_steps_and_evaluations(scoring):
    config = TrainingConfig(time="100s")
    model = recipe.shape(config, 10**7, 60)
    plan = recipe.plan(config, model, 10**7, seconds_per_step=0.1, seconds_per_evaluation=scoring, spent=5.0)
    evaluations = -(-plan.steps // plan.evaluate_every)
    assert 98 <= plan.steps * 0.1 + evaluations * scoring + 5.0 <= 100


def test_what_the_user_names_is_kept():
    config = TrainingConfig(hidden=33, layers=3, embedding=7, batch=5, window=9, lr=0.5, dropout=0.0, steps=11)
    model = recipe.shape(config, 10**6, 60)
    plan = recipe.plan(config, model, 10**6)
    assert (model.hidden, model.layers, model.embedding) == (33, 3, 7)
    assert (plan.batch, plan.window, plan.lr, plan.dropout, plan.steps) == (5, 9, 0.5, 0.0, 11)


def test_the_learning_rate_rises_and_falls_to_its_floor():
    rates = [schedule((step + 0.5) / 200) for step in range(200)]
    top = rates.index(max(rates))
    assert top in (19, 20) and max(rates) == pytest.approx(1, rel=0.03)
    assert rates[: top + 1] == sorted(rates[: top + 1]) and rates[top:] == sorted(rates[top:], reverse=True)
    assert rates[-1] == pytest.approx(0.02, rel=0.02) and rates[0] > 0
    assert schedule(0.5) > 0


def test_a_new_plan_changes_the_pace_and_never_the_place():
    progress = Progress(plans=[(0, 0.0, 100)])
    ways = []
    for step in range(160):
        progress.step = step
        if step == 40:
            before = progress.way()
            progress.plan_again(160)
            assert progress.way() == pytest.approx(before, abs=0.006)
        ways.append(progress.way())
    assert progress.steps == 160
    assert ways == sorted(ways) and max(b - a for a, b in itertools.pairwise(ways)) < 0.0101
    assert ways[-1] == pytest.approx(1, abs=0.005)


def test_a_generation_begins_at_the_beginning_of_the_way_and_with_a_curve_of_its_own():
    progress = Progress(step=70, plans=[(0, 0.0, 100)], curve=[(50, 2.0, 2.1)], waited=3, nats=5.0, tokens=2)
    progress.plan_again(90)
    progress.step = 90
    progress.again()
    assert (progress.generation, progress.born, progress.steps, progress.length) == (2, 90, 180, 90)
    assert (progress.waited, progress.nats, progress.tokens) == (0, 0.0, 0) and progress.own_curve() == []
    assert progress.way() == pytest.approx(0.5 / 90)
    progress.step = 120
    progress.plan_again(200)
    progress.curve.append((120, 1.9, 2.0))
    assert (progress.generation, progress.born, progress.length) == (2, 90, 110) and progress.own_curve() == [(120, 1.9, 2.0)]
    assert Progress.from_json(json.loads(json.dumps(dataclasses.asdict(progress)))) == progress


@pytest.mark.parametrize("curve, held_out, done, outlook, says", [
    ([(1, 3.0, 3.0), (2, 1.0, 1.6), (3, 0.5, 1.9)], True, "stopped early", "overfits", "--dropout"),
    ([(1, 3.0, 3.0), (2, 2.0, 2.0), (3, 1.9, 1.9), (4, 1.8, 1.8)], True, "finished", "unfinished", "train longer"),
    ([(1, 3.3, 3.3), (2, 3.3, 3.3), (3, 3.3, 3.3)], True, "finished", "stuck", "--lr"),
    ([(1, 2.0, 2.0), (2, 0.1, 0.1), (3, 0.1, 0.1)], False, "finished", "memory", "not skill"),
    ([(1, 2.0, 2.0), (2, 1.5, 1.52), (3, 1.5, 1.52), (4, 1.5, 1.52), (5, 1.5, 1.52), (6, 1.5, 1.52)], True, "finished", "", ""),
    ([(1, 3.0, 3.0), (2, 2.0, 2.0), (3, 1.9, 1.9), (4, 1.8, 1.8)], True, "used up", "used up", "more text"),
    ([(1, 3.0, 3.0), (2, 1.0, 1.6), (3, 0.5, 1.9)], True, "used up", "overfits", "--dropout"),
    ([(1, 3.0, 3.0), (2, 1.11, 1.45), (3, 1.1, 1.45)], True, "finished", "overfits", "--dropout"),
    ([(1, 3.0, 3.0), (2, 1.11, 1.45), (3, 1.1, 1.45)], True, "taught", "", ""),
    ([(1, 2.0, 2.0)], True, "", "", ""),
    ([], True, "finished", "", ""),
])
def test_the_curves_are_read(curve, held_out, done, outlook, says):
    word, said = read_curve(curve, unigram=3.3, held_out=held_out, done=done, used_up=done == "used up",
                            taught=done == "taught")
    assert word == outlook and says in said and bool(said) == bool(says)


def test_more_time_is_not_proposed_where_it_would_plan_the_same_run():
    """A run is used up exactly where, with a thousand times its time, the same model would take the same steps."""
    found = set()
    for tokens, time in itertools.product((2_000, 160_000, 3_000_000), ("10s", "3m", "2h")):
        config = TrainingConfig(time=time)
        plans = []
        for given in (config, dataclasses.replace(config, time=f"{1000 * seconds(time):.0f}s")):
            model = recipe.shape(given, tokens, 70)
            plans.append((model, recipe.plan(given, model, tokens, seconds_per_step=0.001, seconds_per_evaluation=0.01)))
        (model, made), other = plans
        found.add(same := (model, made.steps, made.generations) == (other[0], other[1].steps, other[1].generations))
        assert recipe.used_up(config, model, made, tokens, made.steps) == same
        assert not recipe.used_up(dataclasses.replace(config, time=None, steps=made.steps), model, made, tokens, made.steps)
        assert not recipe.used_up(config, model, made, tokens, made.steps - 1)
    assert found == {True, False}
