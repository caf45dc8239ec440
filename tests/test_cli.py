"""The command as its user meets it: real processes, their output, and their exit codes."""

import json
import os
import signal
import subprocess
import sys
import time
import unicodedata

import pytest
from conftest import VERSE

from charrnn.checkpoint import MODEL, RESUME, load, read
from charrnn.commands.streams import known
from charrnn.tokenizer import build

QUICK = ["--hidden", "8", "--threads", "1"]


def charrnn(*arguments, cwd=None, **more):
    return subprocess.run([sys.executable, "-m", "charrnn", *map(str, arguments)], cwd=cwd, capture_output=True, timeout=120,
                          text=True, encoding="utf-8", **more)


def refused(result, *says, code=2):
    """One line on stderr, the exit code, nothing on stdout."""
    assert result.returncode == code, result.stderr
    assert result.stdout == "" and result.stderr.count("\n") == 1 and result.stderr.startswith("charrnn: ")
    for word in says:
        assert word in result.stderr
    return True


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run that spells hello, made by the command."""
    folder = tmp_path_factory.mktemp("trained")
    os.environ["CHARRNN_CACHE"] = str(folder / "cache")
    (folder / "hello.txt").write_text("hello")
    result = charrnn("train", "hello.txt", cwd=folder)
    assert result.returncode == 0, result.stderr
    return folder / "checkpoints" / "hello"


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_hello(cell, tmp_path):
    (tmp_path / "hello.txt").write_text("hello")
    trained = charrnn("train", "hello.txt", "--cell", cell, cwd=tmp_path)
    assert trained.returncode == 0 and trained.stdout == ""
    assert "validated on what it is trained on" in trained.stderr and "\x1b" not in trained.stderr
    run = load(tmp_path / "checkpoints" / "hello")
    assert [run.tokenizer.symbol(token) for token in range(4)] == ["e", "h", "l", "o"] and run.config.embedding == 0
    result = charrnn("sample", "checkpoints/hello", "--prompt", "h", "--length", "4", "--temperature", "0", cwd=tmp_path)
    assert (result.stdout, result.stderr, result.returncode) == ("hello\n", "", 0)


def test_the_title_word_by_word(tmp_path):
    (tmp_path / "title.txt").write_text("the time machine by H. G. Wells")
    assert charrnn("train", "title.txt", "--level", "word", cwd=tmp_path).returncode == 0
    result = charrnn("sample", "checkpoints/title", "--prompt", "the", "--length", "14", "--temperature", "0", cwd=tmp_path)
    assert result.stdout == "the time machine by H. G. Wells\n"


def test_json_events_and_an_existing_run_is_never_overwritten(small_text, tmp_path):
    first = charrnn("train", small_text, "--steps", "12", *QUICK, "--json", cwd=tmp_path)
    events = [json.loads(line) for line in first.stdout.splitlines()]
    assert events[0]["event"] == "start" and events[-1]["event"] == "end" and first.stderr == ""
    assert {"start", "step", "evaluation", "sample", "checkpoint", "end"} == {event["event"] for event in events}
    assert {"validation_nats_per_character", "validation_bits_per_character", "steps", "seconds", "characters_per_second", "parameters",
            "run"} <= set(events[-1])
    run = tmp_path / "checkpoints" / "verse"
    before = (run / MODEL).read_bytes()
    assert refused(charrnn("train", small_text, "--steps", "9", *QUICK, cwd=tmp_path), "--resume", "--out")
    assert (run / MODEL).read_bytes() == before
    assert refused(charrnn("train", small_text, "--resume", "--hidden", "9", cwd=tmp_path), "--hidden 8", "not 9")
    assert charrnn("train", small_text, "--resume", cwd=tmp_path).returncode == 0
    (tmp_path / "other.txt").write_text("other " * 300)
    assert refused(charrnn("train", "other.txt", "--resume", "--out", run, cwd=tmp_path), "not the text")


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_the_run_goes_on_as_if_nothing_had_been(number, code, small_text, tmp_path):
    arguments = ["train", str(small_text), "--steps", "1500", "--json", *QUICK]
    process = subprocess.Popen([sys.executable, "-m", "charrnn", *arguments, "--out", "cut"], cwd=tmp_path, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE)
    while b'"step"' not in process.stdout.readline():
        pass
    time.sleep(0.2)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code and b"Traceback" not in err
    assert json.loads(out.splitlines()[-1])["reason"] == "interrupted"
    step = read(tmp_path / "cut" / RESUME)[1]["progress"]["step"]
    assert 0 < step < 1500
    assert charrnn("train", small_text, "--resume", "--out", "cut", cwd=tmp_path).returncode == 0
    assert charrnn(*arguments, "--out", "whole", cwd=tmp_path).returncode == 0
    assert (tmp_path / "cut" / MODEL).read_bytes() == (tmp_path / "whole" / MODEL).read_bytes()


def test_sampling_is_repeatable_and_counts(trained, tmp_path):
    arguments = ("sample", trained, "--prompt", "he", "--length", "30", "--temperature", "1.5")
    first = charrnn(*arguments, "--seed", "5")
    assert first.stdout == charrnn(*arguments, "--seed", "5").stdout and first.stdout.startswith("he")
    many = [json.loads(line) for line in charrnn(*arguments, "--seed", "4", "--count", "3", "--json").stdout.splitlines()]
    assert [one["seed"] for one in many] == [4, 5, 6]
    assert "he" + many[1]["text"] + "\n" == first.stdout
    assert all(one["prompt"] == "he" and one["tokens"] == 30 and one["nats"] > 0 and one["stopped"] is None for one in many)
    stopped = json.loads(charrnn("sample", trained, "--prompt", "h", "--temperature", "0", "--stop", "lo", "--json").stdout)
    assert (stopped["text"], stopped["stopped"]) == ("el", "lo")
    piped = charrnn("sample", trained, "--prompt", "-", "--length", "4", "--temperature", "0", input="h")
    assert piped.stdout == "hello\n"


def test_a_prompt_that_the_model_cannot_read_is_named(trained):
    result = charrnn("sample", trained, "--prompt", "hé", "--length", "2", "--seed", "1")
    assert result.returncode == 0 and "'é'" in result.stderr and result.stdout.startswith("hé")


def test_a_composed_prompt_is_read_in_the_form_of_the_text(tmp_path):
    (tmp_path / "v.txt").write_text("việt " * 30, encoding="utf-8")
    charrnn("train", "v.txt", "--steps", "2", *QUICK, cwd=tmp_path)
    result = charrnn("sample", "checkpoints/v", "--prompt", "vie\u0323\u0302t", "--length", "1", cwd=tmp_path)
    assert "NFC" in result.stderr and result.stdout.startswith("việt")


@pytest.mark.parametrize("level", ["char", "word", "subword"])
@pytest.mark.parametrize("form, other", [("NFC", "NFD"), ("NFD", "NFC")])
def test_any_option_is_read_in_the_form_of_the_text_where_a_vocabulary_was_learnt(level, form, other):
    tokenizer = build(level, lambda: [unicodedata.normalize(form, VERSE)], 320 if level != "char" else None)
    for text in ("Trăm năm", "ệ"):
        notes = []
        assert known(unicodedata.normalize(other, text), tokenizer, notes, "--text") == unicodedata.normalize(form, text)
        assert f"--text is read in Unicode form {form}" in notes.pop()
        assert known(unicodedata.normalize(form, text), tokenizer, notes, "--text") == unicodedata.normalize(form, text) and notes == []
    assert known("ẃ", tokenizer, notes, "--text") == "ẃ" and "Unicode form" not in "".join(notes)  # no better known in the other form


def test_a_closed_pipe_ends_it_quietly(trained):
    result = subprocess.run(f"{sys.executable} -m charrnn sample {trained} --length 300000 | head -c 5", shell=True, capture_output=True,
                            timeout=60)
    assert len(result.stdout) == 5 and result.stderr == b""


def test_evaluate(trained, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("hello, hé", encoding="utf-8")
    result = charrnn("evaluate", trained, text, "--json")
    figures = json.loads(result.stdout)
    assert list(figures) == ["run", "level", "tokens", "characters", "bytes", "nats", "nats_per_token", "nats_per_character", "perplexity",
                             "bits_per_character", "bits_per_byte", "unknown_characters", "seconds"]
    assert (figures["characters"], figures["bytes"], figures["unknown_characters"]) == (9, 10, 3)
    own = charrnn("evaluate", trained, trained.parents[1] / "hello.txt")
    assert "not held-out" in own.stderr and "unigram" in own.stdout and "xz" in own.stdout


def test_inspect(trained):
    assert "output.w" in charrnn("inspect", trained).stdout
    found = json.loads(charrnn("inspect", trained, "--json").stdout)
    assert found["text"]["characters"] == 5 and found["configuration"]["model"]["cell"] == "lstm"
    assert sum(count for _, _, count in found["parameters"]) == load(trained).config.parameters()


def test_bad_input_is_answered_in_one_line(trained, tmp_path):
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "latin.txt").write_bytes("première\nligne\ncafé".encode("latin-1"))
    (tmp_path / "binary.txt").write_bytes(bytes(range(256)) * 10)
    (tmp_path / "folder").mkdir()
    (tmp_path / "good.txt").write_text("some text " * 200)
    (tmp_path / "broken.safetensors").write_bytes((trained / MODEL).read_bytes()[:-7])
    train = lambda *arguments: charrnn("train", *arguments, cwd=tmp_path)
    assert refused(train("none.txt"), "none.txt", "no such")
    assert refused(train("folder"), "folder", ".txt")
    assert refused(train("empty.txt"), "empty.txt", "empty")
    assert refused(train("latin.txt"), "latin.txt", "line 1", "offset 5", "--errors replace")
    assert refused(train("binary.txt"), "binary.txt", "binary")
    assert refused(train("good.txt", "--hidden", "0"), "--hidden 0")
    assert refused(train("good.txt", "--hidden", "many"), "--hidden")
    assert refused(train("good.txt", "--time", "3m", "--steps", "5"), "exclude each other")
    assert refused(train("good.txt", "--nonsense"), "--nonsense")
    assert refused(train("good.txt", "--device", "cuda:9", "--steps", "1"), "--device cuda:9")
    assert refused(train("good.txt", "--resume"), "nothing to resume")
    assert refused(train("good.txt", "--level", "subword", "--vocab-size", "3"), "vocab")
    assert refused(train(), "TEXT")
    assert refused(charrnn("sample", tmp_path / "folder"), "not a run")
    assert refused(charrnn("sample", tmp_path / "broken.safetensors"), "broken.safetensors")
    assert refused(charrnn("sample", tmp_path / "gone"), "no such run")
    assert refused(charrnn("sample", trained, "--temperature", "-1"), "--temperature")
    assert refused(charrnn("evaluate", trained, tmp_path / "none.txt"), "no such")
    assert refused(charrnn("fetch", "nothing"), "nothing")
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.skipif(os.geteuid() != 0 and os.access("/proc/version", os.W_OK), reason="needs a folder that cannot be written")
def test_a_folder_that_cannot_be_written_is_named(small_text):
    result = charrnn("train", small_text, "--steps", "2", *QUICK, "--out", "/proc/nowhere")
    assert result.returncode == 5 and "/proc/nowhere" in result.stderr and "Traceback" not in result.stderr


def test_training_does_not_load_torchs_compiler(small_text, tmp_path):
    """It takes longer than all else that comes before the first step; and it holds on to a process group, whose threads must not live on
    while Python ends."""
    code = "import sys; from charrnn.cli import main\ntry: main()\nexcept SystemExit: pass\nassert 'torch._dynamo' not in sys.modules"
    command = [sys.executable, "-c", code, "train", small_text, "--steps", "2", *QUICK, "--out", str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and (tmp_path / "run" / "model.safetensors").is_file(), done.stderr


def test_help_and_samples_load_no_torch(trained):
    code = "import sys; from charrnn.cli import main\ntry: main()\nexcept SystemExit: pass\nassert 'torch' not in sys.modules"
    for arguments in (["--help"], ["train", "--help"], ["sample", str(trained), "--length", "3"], ["inspect", str(trained)], ["fetch"]):
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
