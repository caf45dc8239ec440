"""The page about a run: nothing from outside, nothing unescaped, the model's own numbers, and controls that work in a browser."""

import base64
import dataclasses
import hashlib
import json
import re
import subprocess
import sys
import xml.etree.ElementTree
from itertools import pairwise

import numpy as np
import pytest
from browser import Browser, chromium
from conftest import VERSE
from small import ALL, ALL_NAMES, BOTH, SHAPES, random_run

import charrnn
from charrnn import checkpoint, gradients, plots, report
from charrnn.cli import main
from charrnn.commands import looking
from charrnn.errors import UsageError
from charrnn.runtime import Runtime
from charrnn.trace import read

HOSTILE = '</script><script>alert(1)</script> <img src=x onerror=alert(2)> & "quoted" \x1b[31m\u202e {{x}}\n\tTrăm năm'
CURVE = [(10, 3.0, 3.1), (20, 2.0, 2.5), (30, 1.5, 2.6)]


def made(shape, tmp_path, told=HOSTILE):
    """A run with a curve and samples on record, and its page."""
    run = random_run(VERSE + HOSTILE, **shape)
    facts = {**run.text, "name": "<b>name</b>"}
    metrics = {"curve": CURVE, "plan": {"<i>": "<u>"}, "validation_nats_per_character": 2.5, "validation_bits_per_character": 3.6,
               "validation_nats_per_token": 2.5}
    run = dataclasses.replace(run, path=tmp_path, text=facts, metrics=metrics)
    (tmp_path / checkpoint.SAMPLES).write_text(json.dumps({"step": 10, "text": HOSTILE}) + "\n")
    return run, report.page(run, told, gradients=gradients.of(run, VERSE))


def embedded(page):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1])


@pytest.mark.parametrize("shape", ALL, ids=ALL_NAMES)
def test_the_page_holds_the_models_own_numbers_and_nothing_from_outside(shape, tmp_path):
    run, page = made(shape, tmp_path)
    script = re.search(r"<script>(.*)</script>", page, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; base-uri 'none'" in page
    assert page.count("<script") == 2 and "alert(1)</script>" not in page and "<img" not in page and "<b>name" not in page
    assert "<i>:" not in page and "<u>" not in page and "\x1b" not in page and "\u202e" not in page
    assert set(re.findall(r"https?://[^\s\"']+", page)) == {"http://www.w3.org/2000/svg"} and "@import" not in page
    assert set(re.findall(r"url\(([^)]*)\)", page)) == {"#arrow"}
    assert "<" not in re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1]
    drawn = re.findall(r"<svg .*?</svg>", page, re.DOTALL)
    for one in drawn[:2]:
        xml.etree.ElementTree.fromstring(one)
    reading, data = read(run, HOSTILE, alternatives=report.LIKELY), embedded(page)
    assert sum(token["nats"] for token in data["tokens"]) == pytest.approx(reading.nats.sum(), abs=1e-3 * len(reading.ids))
    inner = data["inner"]
    towers = reading.layers + reading.back
    assert len(towers) == len(inner["layers"])
    for layer, told in zip(inner["layers"], towers, strict=True):
        chosen = np.array(layer["units"]) - 1
        for name, rows in layer["values"].items():
            np.testing.assert_allclose(rows, told[name][: inner["steps"], chosen].T, atol=1e-4)
        v = {name: np.array(rows) for name, rows in layer["values"].items()}
        v |= {f"{name} 0": np.array(rows) for name, rows in layer["before"].items()}
        if run.config.cell == "lstm":
            np.testing.assert_allclose(v["memory"], v["forget"] * v["memory 0"] + v["input"] * v["candidate"], atol=1e-3)
        elif run.config.cell == "gru":
            np.testing.assert_allclose(v["hidden"], v["update"] * v["hidden 0"] + (1 - v["update"]) * v["candidate"], atol=1e-3)
        assert v["hidden 0"][:, 0].any() or layer["way"] > 0 or inner["steps"] == 1
    for step, best in enumerate(inner["expected"][: len(reading.ids)]):
        np.testing.assert_allclose([p for _, p in best], reading.p[step], atol=1e-4)
    assert len(inner["expected"]) == inner["steps"] + (len(reading.ids) > inner["steps"] or not reading.back)
    for word in ("How it learnt", "What it wrote as it learnt", "Where it is surprised", "The cell at work", "How far back it learns"):
        assert f"<h2>{word}</h2>" in page
    assert f"{run.config.parameters():,}" in page and "b<sub>" in page
    names = re.findall("<tr><th>([a-z ]+)<td>", page)
    assert len(names) == len(set(names)) > 15 and f"<th>bidirectional<td>{'yes' if run.config.bidirectional else 'no'}<" in page


@pytest.mark.parametrize("shape", [one for one in ALL if one["cell"] == "gru"])
def test_what_the_weights_box_of_a_gru_puts_out_is_what_its_candidate_is_made_of(shape, tmp_path):
    run, page = made(shape, tmp_path)
    for layer in embedded(page)["inner"]["layers"]:
        if not layer["name"].startswith("layer 1"):
            continue
        reading, units = read(run, HOSTILE), np.array(layer["units"]) - 1
        steps, H = len(layer["values"]["reset"][0]), run.config.hidden
        table = Runtime(run.config, run.weights, backward=layer["way"] < 0).table[:, 2 * H :]
        x = table[run.tokenizer.model_ids(reading.ids)[:steps]][:, units].T
        reset, product = np.array(layer["values"]["reset"]), np.array(layer["before"]["product"])
        made_of = x + (reset * product if run.config.gru_reset == "after" else product)
        np.testing.assert_allclose(layer["values"]["candidate"], np.tanh(made_of), atol=1e-3)
    drawn = re.search(r'<svg [^>]*class="drawing">.*?</svg>', page, re.DOTALL)[0]
    assert ("W, b" in drawn) == (run.config.gru_reset == "after") and ("(R ⊙ H) W" in drawn) == (run.config.gru_reset == "before")


def test_training_keeps_what_it_wrote_and_the_command_makes_the_page(small_text, tmp_path):
    for _ in charrnn.train(small_text, tmp_path / "run", hidden=6, steps=12, threads=1):
        pass
    rows = checkpoint.recorded(tmp_path / "run")
    assert [row["step"] for row in rows] == [12] and len(rows[0]["text"]) == 240
    command = [sys.executable, "-m", "charrnn", "report", str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stderr == "" and done.stdout == f"{tmp_path}/run/report.html\n"
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "never saw" in page and "12" in page
    held_out = small_text.read_text(encoding="utf-8")[charrnn.load(tmp_path / "run").text["training_characters"] :]
    assert "".join(token["text"] for token in embedded(page)["tokens"]) == held_out[: report.READ]
    refused = subprocess.run([*command, "--out", str(tmp_path / "no" / "x.html")], capture_output=True, text=True, timeout=60)
    assert refused.returncode == 5 and refused.stderr.count("\n") == 1


def test_what_makes_no_page_is_refused_in_one_line_and_a_long_text_is_cut(tmp_path, monkeypatch, capsys):
    checkpoint.save_model(dataclasses.replace(random_run(VERSE, **SHAPES[2]), path=tmp_path))
    monkeypatch.setattr(looking, "PAGE", 50)
    told = ["--text", VERSE, "--out", str(tmp_path / "x.html")]
    for wrong in (["--text", ""], ["--plot", ""], ["--out", ""], ["--out", str(tmp_path)], told):
        monkeypatch.setattr("sys.argv", ["charrnn", "report", str(tmp_path), *wrong])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        cut = wrong == told
        assert ended.value.code == (0 if cut else 2) and said.err.count("\n") == 1 and bool(said.out) == cut
    assert f"the first 50 of {len(VERSE)} characters" in said.err
    assert len(embedded((tmp_path / "x.html").read_text(encoding="utf-8"))["tokens"]) == 50


def test_a_sample_replaces_those_of_later_steps(small_text, tmp_path):
    """A run that was cut goes on from an earlier step."""
    from charrnn.session import Session

    session = Session.__new__(Session)
    session.run = tmp_path
    for step in (10, 20, 30, 20, 40):
        session.record(step, f"at {step}")
    rows = [json.loads(line) for line in (tmp_path / checkpoint.SAMPLES).read_text().splitlines()]
    assert [row["step"] for row in rows] == [10, 20, 40]


@pytest.mark.parametrize("shape", ALL, ids=ALL_NAMES)
@pytest.mark.parametrize("kind", ["png", "svg"])
def test_pictures_by_matplotlib(shape, kind, tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    run, _ = made(shape, tmp_path)
    reach, path = gradients.of(run, VERSE), tmp_path / f"run.{kind}"
    drawn = plots.figure(read(run, HOSTILE), reach, path)
    assert drawn == plots.figure(read(run, HOSTILE), reach, path)
    if kind == "png":
        assert drawn.startswith(b"\x89PNG") and len(drawn) > 20_000
    else:
        said = "".join(xml.etree.ElementTree.fromstring(drawn).itertext())
        for name in dict(lstm=("forget", "output", "memory"), gru=("reset", "update")).get(run.config.cell, ()):
            for side in ("forward", "backward") if run.config.bidirectional else ("",):
                assert re.search(f"{name}[ a-z]* ?[A-Z], layer {run.config.layers}(, {side})?", said, re.IGNORECASE)
        assert "How far back it learns" in said and "<b>name</b>" in said and "\x1b" not in said


def test_without_matplotlib_or_with_another_ending_a_line_says_so(tmp_path, monkeypatch):
    run, _ = made(SHAPES[0], tmp_path)
    with pytest.raises(UsageError, match=r"png or \.svg"):
        plots.figure(read(run, "T"), {"curves": []}, tmp_path / "x.txt")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UsageError, match="pip install matplotlib"):
        plots.figure(read(run, "T"), {"curves": []}, tmp_path / "x.png")


@pytest.mark.skipif(chromium() is None, reason="there is no Chromium here")
def test_in_a_browser_it_renders_and_its_controls_work(tmp_path):
    with Browser(chromium(), tmp_path / "profile") as browser:
        for name, shape in zip(ALL_NAMES, ALL):
            folder = tmp_path / name
            folder.mkdir()
            run, page = made(shape, folder)
            (folder / "report.html").write_text(page, encoding="utf-8")
            browser.open(folder / "report.html")
            assert browser.run("document.documentElement.dataset.ready") == "yes", browser.said
            step = lambda: browser.run("document.getElementById('step').textContent")
            steps = embedded(page)["inner"]["steps"]
            assert step() == f"2 of {steps}"
            browser.point("#on", click=True)
            assert step() == f"3 of {steps}"
            browser.point("#back", click=True)
            browser.run("document.getElementById('cell').focus()")
            for key, at in (("ArrowRight", 3), ("ArrowRight", 4), ("ArrowLeft", 3), ("End", steps), ("ArrowRight", steps), ("Home", 1)):
                browser.press(key)
                assert step() == f"{at} of {steps}"
            browser.point("#sentence button:nth-of-type(6)", click=True)
            assert step() == f"6 of {steps}"
            layer = read(run, HOSTILE).layers[0]
            unit = embedded(page)["inner"]["layers"][0]["units"][0] - 1
            for gate, values in layer.items():
                told = browser.run(f"[...document.querySelectorAll('[data-number=\"{gate}\"]')].map(one => one.textContent)")
                assert told and all(abs(float(one.replace("−", "-")) - values[5, unit]) < 0.0051 for one in told)
            browser.point("#surprise button:nth-of-type(3)")
            assert browser.run("document.getElementById('chosen').textContent") == "s"
            browser.run("document.querySelector('#surprise button').focus()")
            browser.press("ArrowRight")
            assert browser.run("document.getElementById('chosen').textContent") == "/"
            assert browser.run("document.querySelectorAll('#map rect').length") > steps
            browser.run("(select => { select.selectedIndex = select.options.length - 1; select.dispatchEvent(new Event('change')); })"
                        "(document.getElementById('map-name'))")
            assert browser.run("document.querySelectorAll('script').length") == 2
            browser.call("Emulation.setDeviceMetricsOverride", width=375, height=800, deviceScaleFactor=1, mobile=False)
            assert browser.run("document.documentElement.scrollWidth <= document.documentElement.clientWidth")  # the pictures scroll
            high = browser.run("[...document.querySelectorAll('.chart .tick')].map(one => one.getBoundingClientRect().height)")
            assert high and min(high) > 8
            browser.call("Emulation.clearDeviceMetricsOverride")
            assert browser.said == []
        blocked = browser.run("new Promise(tell => { document.addEventListener('securitypolicyviolation', event => "
                              "tell(event.effectiveDirective)); fetch('https://localhost/x').catch(() => 0); })")
        assert blocked == "connect-src"


@pytest.mark.skipif(chromium() is None, reason="there is no Chromium here")
@pytest.mark.parametrize("shape", [SHAPES[0], {**BOTH[0], "level": "word"}], ids=["char", "word"])
def test_on_paper_nothing_is_cut_off_torn_or_of_no_use_and_no_line_ends_within_a_word(shape, tmp_path):
    _, page = made(shape, tmp_path, VERSE[:400] + HOSTILE)
    (tmp_path / "report.html").write_text(page, encoding="utf-8")
    every = lambda browser, selector, what: browser.run(f"[...document.querySelectorAll('{selector}')].map(one => {what})")
    with Browser(chromium(), tmp_path / "profile") as browser:
        browser.call("Emulation.setDeviceMetricsOverride", width=600, height=1000, deviceScaleFactor=1, mobile=False)  # A4, wide margins
        browser.call("Emulation.setEmulatedMedia", media="print", features=[{"name": "prefers-color-scheme", "value": "dark"}])
        browser.open(tmp_path / "report.html")
        assert max(every(browser, "main *", "one.getBoundingClientRect().right")) <= 600
        assert set(every(browser, ".controls, .live", "one.getClientRects().length")) == {0}
        assert every(browser, "body", "getComputedStyle(one).backgroundColor") == ["rgb(255, 255, 255)"]
        whole = "(() => { for (let at = one; at; at = at.parentElement) if (getComputedStyle(at).breakInside === 'avoid') return true; })()"
        assert all(every(browser, "svg, .card, .sample, tr", whole))
        assert set(every(browser, "h2, .say", "getComputedStyle(one).breakAfter")) == {"avoid"}
        beside = sorted(every(browser, "#map text:nth-last-of-type(-n + 40)", "[one.getBoundingClientRect().x, "
                                                                               "one.getBoundingClientRect().right]"))
        assert len(beside) == 40 and all(last[1] < following[0] + 4 for last, following in pairwise(beside))
        browser.call("Emulation.setEmulatedMedia", media="")
        browser.call("Emulation.setDeviceMetricsOverride", width=375, height=800, deviceScaleFactor=1, mobile=False)
        browser.open(tmp_path / "report.html")
        lines = every(browser, "#surprise button", "[one.textContent, one.getBoundingClientRect().y]")
        assert len({y for _, y in lines}) > 5
        for (one, y), (other, below) in pairwise(lines):
            assert y == below or not (one + other).isalpha()
        names = browser.run("[...document.querySelectorAll('.chart .tick')].filter(one => one.textContent === 'held out').map(one => "
                            "one.getBoundingClientRect().right)")
        assert names and max(names) < 375
        assert browser.said == []
