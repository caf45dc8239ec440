"""What the documents say is so: commands parse, options exist, links lead somewhere, the Python example runs."""

import importlib.util
import io
import json
import re
import shlex
import shutil
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest

from charrnn import events, screen
from charrnn.cells import GATES
from charrnn.config import LEVELS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
VIETNAMESE = (ROOT / "README.vi.md").read_text(encoding="utf-8")
REFERENCE = (ROOT / "docs" / "options.md").read_text(encoding="utf-8")
DOCUMENTS = [path.relative_to(ROOT).as_posix() for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("*/README.md"))]


def script(name):
    spec = importlib.util.spec_from_file_location(f"docs_{name}", ROOT / "docs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


options = script("options")
COMMANDS = options.commands()


def blocks(language, document=README):
    return re.findall(rf"^```{language}\n(.*?)^```", document, re.DOTALL | re.MULTILINE)


def shown(document=README):
    """The charrnn commands in a document's blocks and in its running text, as lists of words."""
    blocked = [line for block in blocks("sh", document) + blocks("text", document) for line in block.splitlines()]
    for line in blocked + re.findall(r"`(charrnn [^`]*)`", document):
        for part in re.split(r"[|;]|&&", line):
            if (words := part.strip().removeprefix("$ ").split("#")[0].strip()).startswith("charrnn "):
                yield shlex.split(words.split(" > ")[0])[1:]


def test_the_reference_is_up_to_date():
    assert options.reference() == REFERENCE, "run: make docs"


def test_each_command_and_option_is_documented():
    for name, command in COMMANDS.items():
        assert f"`charrnn {name}" in README or f"\ncharrnn {name} " in README
        section = REFERENCE.split(f"## charrnn {name} ")[1].split("\n## ")[0]
        for option in options.options(command):
            assert f"`{option}`" in section


@pytest.mark.parametrize("document", [README, VIETNAMESE], ids=["README.md", "README.vi.md"])
def test_the_commands_that_are_shown_parse(document):
    found = list(shown(document))
    assert len(found) > 11
    for name, *arguments in found:
        if not name.startswith("-") and "--help" not in arguments:
            COMMANDS[name].make_context(name, list(arguments))  # raises for options that are not there
    assert document is VIETNAMESE or {words[0] for words in found} >= set(COMMANDS)


@pytest.mark.parametrize("document", [README, VIETNAMESE], ids=["README.md", "README.vi.md"])
def test_options_in_running_text_exist(document):
    known = {option for command in COMMANDS.values() for option in options.options(command)} | {"--help", "--install-completion"}
    text = re.sub(r"^```.*?^```", "", document, flags=re.DOTALL | re.MULTILINE)
    assert {option for option in re.findall(r"`(--[a-z-]+)", text)} - known == set()


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"(?:`|^)make ([a-z-]+)", README + VIETNAMESE, re.MULTILINE)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document):
    path = ROOT / document
    links = re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8"))
    for link in links:
        assert link.startswith(("https://", "#")) or (path.parent / link.split("#")[0]).exists(), link


def test_levels_cells_and_json_keys_are_documented():
    for word in (*LEVELS, *GATES):
        assert f"`{word}`" in README or f"{word}`" in README
    section = README.split("## JSON")[1].split("\n## ")[0]
    kinds = events.Event.__subclasses__()
    assert len(kinds) == 7 and all(f"`{kind.event}`" in section for kind in kinds)
    assert all(f"`{name}`" in section for name in events.End.__dataclass_fields__ if name != "step")


def test_the_python_example_runs(tmp_path):
    shutil.copytree(ROOT / "data", tmp_path / "data", ignore=lambda _, names: [name for name in names if name != "hello.txt"])
    (code,) = blocks("python")
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    *told, written, bits = done.stdout.splitlines()
    assert told[0] == "start 0" and told[-1].startswith("end ") and written == "ello" and 0 <= float(bits) < 0.5


def test_the_picture_is_drawn_from_json(tmp_path):
    nan = float("nan")
    story = [
        events.Start(step=0, run="checkpoints/x", text="x", level="char", vocabulary=7, cell="gru", layers=2, hidden=5, embedding=3,
                     parameters=99, training_tokens=11, validation_tokens=13, steps=17, batch=2, window=3, device="cpu", threads=1,
                     seconds=0.0, notes=("a note",)),
        events.Step(step=1, steps=17, epoch=0.5, training_nats_per_character=2.5, learning_rate=0.01, gradient_norm=nan,
                    characters_per_second=1234.0, seconds=1.0, remaining=2.0),
        events.Evaluation(step=2, training_nats_per_character=2.0, validation_nats_per_character=2.25, validation_bits_per_character=3.25,
                          validation_perplexity=9.5, best=True, seconds=2.0),
        events.Sample(step=2, text="wrïtten\n"),
    ]
    stream = io.StringIO()
    view = screen.JsonLines(stream)
    for event in story:
        view(event)
    picture = script("picture")
    lines = stream.getvalue().splitlines()
    rebuilt = list(picture.events(lines))
    assert rebuilt[0] == story[0] and rebuilt[2:] == story[2:] and json.loads(lines[1])["gradient_norm"] is None
    assert rebuilt[1].gradient_norm != rebuilt[1].gradient_norm  # it is nan again
    log, drawn = tmp_path / "events.jsonl", tmp_path / "x.svg"
    log.write_text(stream.getvalue(), encoding="utf-8")
    picture.main(str(log), str(drawn))
    said = drawn.read_text(encoding="utf-8")
    assert said.startswith("<svg xml:space") and "wrïtten" in said and "2.250" in said and "@font-face" not in said


def test_the_dashboard_of_the_readme_is_a_picture_of_a_real_run():
    said = (ROOT / "docs" / "dashboard.svg").read_text(encoding="utf-8")
    assert "time_machine" in said and "finished" in said and "@font-face" not in said


def test_the_vietnamese_page_is_written_with_whole_characters_and_the_same_equations():
    assert unicodedata.is_normalized("NFC", VIETNAMESE.replace("\u0303", ""))  # the tilde of H̃ and C̃ has no whole form
    equations = re.findall(r"[A-Z]̃?_t = [^\n]*?(?=   |\n)", README.split("## The equations")[1].split("\n## ")[0])
    assert len(equations) >= 12
    for equation in equations:
        assert equation in VIETNAMESE or "b_xh" in equation  # the second form of gru is left to the English page
