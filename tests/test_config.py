"""Settings: each wrong value is refused with the option's name."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from charrnn.config import ModelConfig, SamplingConfig, TrainingConfig, seconds
from charrnn.errors import CheckpointError, UsageError


@pytest.mark.parametrize("kind, values, says", [
    (TrainingConfig, {"hidden": 0}, "--hidden 0: must be at least 1"),
    (TrainingConfig, {"valid": 0.95}, "--valid 0.95"),
    (TrainingConfig, {"lr": 0.0}, "--lr 0.0: must be more than 0"),
    (TrainingConfig, {"lr": float("nan")}, "--lr nan"),
    (TrainingConfig, {"cell": "transformer"}, "choose from lstm, gru, rnn, mlp"),
    (TrainingConfig, {"time": "3m", "steps": 5}, "exclude each other"),
    (TrainingConfig, {"time": "soon"}, "--time soon"),
    (TrainingConfig, {"vocab_size": 100}, "--vocab-size"),
    (TrainingConfig, {"hidden": "64"}, "--hidden"),
    (TrainingConfig, {"hidden": True}, "--hidden"),
    (SamplingConfig, {"temperature": -1.0}, "--temperature"),
    (SamplingConfig, {"top_p": 0.0}, "--top-p"),
    (SamplingConfig, {"stop": ("",)}, "--stop"),
    (SamplingConfig, {"length": 10**10}, "--length"),
])
def test_wrong_values_name_their_option(kind, values, says):
    with pytest.raises(UsageError) as caught:
        kind(**values)
    assert says in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("time, expected", [("90", 90), ("90s", 90), ("3m", 180), ("1.5h", 5400), ("1h30m", 5400), ("1m5s", 65)])
def test_lengths_of_time(time, expected):
    assert seconds(time) == expected


@given(st.text(alphabet="0123456789.hms ", max_size=8))
def test_a_length_of_time_is_positive_or_refused(time):
    try:
        assert seconds(time) > 0
    except UsageError as error:
        assert "--time" in str(error)


@pytest.mark.parametrize("config", [TrainingConfig(level="word", hidden=3, time="2m"), SamplingConfig(stop=("a", "b")), ModelConfig()])
def test_json_and_back(config):
    assert type(config).from_json(config.as_json()) == config


@pytest.mark.parametrize("change", [{"hidden": -1}, {"hidden": None}, {"cell": ["lstm"]}, {"more": 1}])
def test_what_a_file_says_is_not_trusted(change):
    with pytest.raises(CheckpointError):
        ModelConfig.from_json({**ModelConfig().as_json(), **change})
    with pytest.raises(CheckpointError):
        ModelConfig.from_json([])


def test_files_of_before_a_value_was_added_mean_its_default():
    old = {name: value for name, value in TrainingConfig(hidden=3).as_json().items() if name != "precision"}
    assert TrainingConfig.from_json(old) == TrainingConfig(hidden=3)
    del old["seed"]
    with pytest.raises(CheckpointError, match="seed"):
        TrainingConfig.from_json(old)


def test_parameters_are_counted_by_hand():
    assert ModelConfig(cell="lstm", layers=2, hidden=5, embedding=3, vocabulary=7).parameters() == (
        8 * 3 + (3 * 20 + 5 * 20 + 20) + (5 * 20 + 5 * 20 + 20) + 5 * 7 + 7)
    assert ModelConfig(cell="gru", layers=1, hidden=5, embedding=0, vocabulary=7, gru_reset="after").parameters() == (
        8 * 15 + 5 * 15 + 15 + 5 + 5 * 7 + 7)
