"""One direction of imports, torch only where tensors are trained, and options that are added on purpose."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "charrnn"

# Each module may import only those above it. It is the way of the text: what is set, tokens, corpus, model, training, and last what
# is shown and typed. A new module gets its place here.
LISTED = """
    errors visible disk interrupt compression cells config
    tokens word pieces unigram subword tokenizer sources text fingerprint encoding store corpus batches fetch
    machine world packing runtime stepper container checkpoint gaps sampling filling settings inspection trace units novelty
    kernels.form kernels.buffers kernels.plain kernels.output kernels.sequence kernels.rowwise kernels.native kernels.cudnn kernels
    model update metrics recipe reasons optim exchange distributed beginning evaluation dynamic transfer advice events progress trainer
    gradients planning session training comparison recall api
    curve drawings report plots lines wrapping picture dashboard tables versus heat screen options
    commands commands.arguments commands.streams commands.learning commands.writing commands.measuring commands.looking cli __main__
"""
ORDER = LISTED.split()

# These alone may need torch as they are loaded; machine needs it in its functions.
TORCH = {*(name for name in ORDER if name.startswith("kernels") and name != "kernels.form"), "model", "update", "optim", "exchange",
         "distributed", "evaluation", "dynamic", "gradients", "transfer", "trainer", "planning", "session", "training", "comparison",
         "recall"}

COMMANDS = [f"commands.{name}" for name in ("arguments", "learning", "writing", "measuring", "looking")]  # they alone need typer
HELP = ["--help", "--version", "--install-completion", "--show-completion"]
OPTIONS = {
    "train": """--out --resume --init-from --dry-run --timeout --json --level --vocab-size --valid --encoding --errors --cell --layers
        --hidden --embedding --bidirectional --activation --gru-reset --dropout --weight-drop --time --steps --epochs --generations --batch
        --window --lr --clip --seed --device --threads --shards --precision""",
    "sample": """--novelty --dynamic --raw --json --prompt --length --temperature --top-k --top-p --min-p --repetition-penalty --stop
        --count --seed""",
    "fill": "--json --gap --length --count --width",
    "compare": "--recall --out --json --equal --steps --time --hidden --seed --threads",
    "evaluate": "--encoding --errors --device --threads --dynamic --json",
    "inspect": "--text --unit --gate --backward --find --gradients --json",
    "report": "--out --text --plot",
    "fetch": "--to --mirror",
}


def name_of(path: Path) -> str:
    """The module's name within the package; the package itself is charrnn."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__") or "charrnn"


MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def nodes(tree: ast.AST, inside_functions: bool = True):
    """All nodes but those that only a type checker sees; what runs as the module is loaded, if not `inside_functions`."""
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.If) and ast.unparse(child.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            continue
        if isinstance(child, ast.FunctionDef) and not inside_functions:
            continue
        yield child
        yield from nodes(child, inside_functions)


def imported(source: str, inside_functions: bool = True) -> set[str]:
    """The full names that a module imports: of `from a import b` both a and a.b, as b may be a module."""
    found = set()
    for node in nodes(ast.parse(source), inside_functions):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are written in full"
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def test_each_module_has_its_place():
    assert len(set(ORDER)) == len(ORDER)
    assert set(ORDER) == set(MODULES) - {"charrnn"}, "a module is new or gone: give it its place in ORDER"


@pytest.mark.parametrize("module", ORDER)
def test_imports_point_upwards(module):
    names = imported(MODULES[module].read_text(encoding="utf-8"))
    ours = {name.removeprefix("charrnn.") for name in names if name.startswith("charrnn.")} & set(MODULES)
    above = set(ORDER[: ORDER.index(module)])
    assert ours - above - {module} == set(), f"{module} imports what is not above it"  # kernels names itself to reach its parts


def test_the_package_itself_imports_nothing_of_its_own():
    assert not {name for name in imported(MODULES["charrnn"].read_text(encoding="utf-8")) if name.startswith("charrnn")}


@pytest.mark.parametrize("module", sorted(set(ORDER) - TORCH))
def test_torch_stays_where_tensors_are_trained(module):
    names = imported(MODULES[module].read_text(encoding="utf-8"), inside_functions=False)
    assert not {name for name in names if name.split(".")[0] == "torch"}
    assert not names & {f"charrnn.{name}" for name in TORCH}, f"{module} loads a module that loads torch"


def test_only_what_draws_knows_rich_and_only_the_command_knows_typer():
    rich, typer = set(), set()
    for module in ORDER:
        tops = {name.split(".")[0] for name in imported(MODULES[module].read_text(encoding="utf-8"))}
        rich |= {module} if "rich" in tops else set()
        typer |= {module} if "typer" in tops else set()
    assert rich <= {"wrapping", "picture", "dashboard", "tables", "versus", "heat", "screen"} and typer == {"options", "cli", *COMMANDS}


@pytest.mark.parametrize("code, absent", [
    ("import charrnn", ["numpy", "rich", "torch", "typer", "safetensors", "sentencepiece"]),
    ("import charrnn.cli", ["torch"]),
    ("import charrnn.api, charrnn.checkpoint, charrnn.sampling, charrnn.runtime, charrnn.tokenizer", ["torch", "rich", "typer"]),
    ("import charrnn.screen, charrnn.fetch, charrnn.inspection, charrnn.settings, charrnn.corpus", ["torch", "rich"]),
])
def test_what_loading_costs(code, absent):
    code += f"; import sys; loaded = [name for name in {absent} if name in sys.modules]; assert not loaded, loaded"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_each_option_is_a_decision():
    import typer

    from charrnn.cli import app

    command = typer.main.get_command(app)
    found = {name: [option for parameter in one.params for option in parameter.opts if option.startswith("-")]
             for name, one in command.commands.items()}
    assert found == {name: options.split() for name, options in OPTIONS.items()}
    assert sorted(option for parameter in command.params for option in parameter.opts) == sorted(HELP[1:])
