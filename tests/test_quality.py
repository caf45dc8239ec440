"""The quality benchmark: what it scores is what was held out, its tables are means of its lines, and its curve stands where it should."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import drawing, peers, quality, report, search, windows
from charrnn.config import ModelConfig
from charrnn.model import Model

V = 7


@pytest.mark.parametrize("cell, layers", [("lstm", 1), ("gru", 2), ("mlp", 1)])
@pytest.mark.parametrize("count", [2, 9, 10, 11, 101])
def test_windows_are_read_one_by_one_from_a_zero_state(cell, layers, count, monkeypatch):
    monkeypatch.setattr(windows, "ROWS", 3)
    model = Model(ModelConfig(cell=cell, layers=layers, hidden=5, embedding=3, vocabulary=V), torch.Generator().manual_seed(0)).double()
    tokens = np.random.default_rng(0).integers(V, size=count).astype(np.uint8)
    width = min(9, count - 1)
    naive, scored = 0.0, 0
    for start in range(0, count - width, width):
        inputs = torch.from_numpy(tokens[start : start + width].astype(np.int64))[:, None]
        logits, _ = model(inputs, model.zero_state(1))
        for place in range(width):
            naive -= float(torch.log_softmax(logits[place, 0].detach(), 0)[int(tokens[start + place + 1])])
            scored += 1
    found, number = windows.score(model, tokens, 9)
    assert number == scored and found == pytest.approx(naive, abs=1e-9)


def line(**more):
    return {"text": peers.TEXT, "time": "1m", "level": "char", "cell": "lstm", "seed": 1, "options": ["--time", "1m", "--seed", "1"],
            "layers": 1, "hidden": 256, "nats": 1.5, "bits": 2.164, "seconds": 60.0, "disturbed": False, **more}


def test_a_row_is_the_mean_over_its_seeds_and_the_later_of_two_lines_counts():
    lines = [line(nats=9.0), line(), line(seed=2, nats=1.7), line(time="10m", options=["--time", "10m"], nats=1.4),
             line(options=["--seed", "1", "--hidden", "64"], hidden=64, nats=1.8)]
    rows = [row.split(" | ") for row in report.table(lines).splitlines() if row.startswith(f"| {peers.TEXT}")]
    assert [row[1] for row in rows] == ["1m", "1m", "10m"]
    assert any("1.600 (1.500 to 1.700)" in row and "1, 2" in row for row in rows)
    assert any("--hidden 64" in " ".join(row) for row in rows)
    assert report.curves(lines) == {"charrnn": [(1.0, 1.6), (10.0, 1.4)]}
    assert "nanoGPT" in report.table(lines) and "nanoGPT" not in report.table([line(text="other.txt")])
    assert report.curves([line(text="other.txt"), line(level="word")]) == {}


def test_the_curve_stands_where_its_figures_are():
    curves = {"charrnn": [(1.0, 1.5), (3.0, 1.45), (60.0, 1.36)], "dynamic": [(3.0, 1.35)]}
    said = drawing.drawn(curves, peers.PEERS)
    path = re.search(r'polyline points="([^"]*)"', said)[1]
    points = [tuple(map(float, pair.split(","))) for pair in path.split()]
    xs, ys = zip(*points)
    assert list(xs) == sorted(xs) and list(ys) == sorted(ys)  # later is to the right, a smaller loss is lower
    tick = {label: float(place) for place, label in re.findall(r'<text x="([\d.]+)" [^>]*>(\d+ min|1 h)</text>', said)}
    assert [xs[0], xs[1], xs[2]] == pytest.approx([tick["1 min"], tick["3 min"], tick["1 h"]], abs=0.1)
    assert all(one.name.split(",")[0] in said for one in peers.PEERS)
    assert said.count("<svg") == said.count("</svg>") == 1


def test_names_at_the_edge_do_not_lie_on_one_another():
    placed = drawing.spread([10.0, 11.0, 9.0, 100.0])
    assert placed[3] == 100.0 and placed[2] == 9.0
    assert placed[0] - placed[2] >= drawing.NEAR and placed[1] - placed[0] >= drawing.NEAR


def test_a_setting_is_options_and_constants():
    assert search.parted("--hidden 8 optim.MOMENTUM=0.9 --lr 0.01") == (["--hidden", "8", "--lr", "0.01"], {"optim.MOMENTUM": 0.9})
    assert search.typed(["--hidden", "8", "--lr", "0.01", "--cell", "gru"]) == {"hidden": 8, "lr": 0.01, "cell": "gru"}
    with pytest.raises(SystemExit, match="no option --hiden"):
        search.typed(["--hiden", "8"])
    with pytest.raises(SystemExit, match="no constant"):
        search.put({"optim.MOMENTS": 1})


def test_a_search_goes_on_where_it_was(small_text, tmp_path, capsys, monkeypatch):
    log = tmp_path / "log.jsonl"
    settings = ["--hidden 4 --threads 1", "--hidden 4 --threads 1 optim.MOMENTUM=0.5"]
    arguments = [str(small_text), *settings, "--lengths", "2", "--log", str(log)]
    assert search.main(arguments) == 0
    first = capsys.readouterr().out
    lines = [json.loads(one) for one in log.read_text().splitlines()]
    assert len(lines) == 2 and lines[0]["best"] != lines[1]["best"] and lines[0]["steps"] == 2
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("it ran again"))
    assert search.main(arguments) == 0 and capsys.readouterr().out == first


def test_a_run_is_measured_on_what_it_never_saw(small_text, tmp_path, capsys):
    log = tmp_path / "quality.jsonl"
    more = "--hidden 4 --threads 1"
    quality.main(["--texts", str(small_text), "--times", "2s", "--more", more, "--log", str(log), "--keep", str(tmp_path)])
    (found,) = [json.loads(one) for one in log.read_text().splitlines()]
    text = small_text.read_text(encoding="utf-8")
    assert found["characters"] == len(text) - int(0.9 * len(text)) and found["unknown"] == 0
    assert found["time"] == "2s" and found["hidden"] == 4 and found["seed"] == 1 and found["level"] == "char"
    assert all(found[name] > 0 for name in ("nats", "dynamic_nats", "windows_nats"))
    assert small_text.name in capsys.readouterr().out
    (run,) = tmp_path.glob("run*")
    metrics = [json.loads(one) for one in (run / "metrics.jsonl").read_text().splitlines()]
    assert found["nats"] == pytest.approx(min(one["validation_nats_per_character"] for one in metrics), rel=1e-5)
    assert quality.main(["--texts", str(small_text), "--windows", str(run)]) == 0
    assert f"{found['windows_nats']:.4f} in windows" in capsys.readouterr().out
    assert report.main([str(log)]) == 0 and "2s" in capsys.readouterr().out


def test_the_modules_start_without_torch():
    code = "import benchmarks.report, benchmarks.drawing, benchmarks.search, benchmarks.quality, sys; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1]).returncode == 0
