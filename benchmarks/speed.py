"""Training, quiet and beside another process, and sampling: sides that take turns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from benchmarks.results import Row
from benchmarks.shapes import CELLS, Settings
from benchmarks.sides import Side, Spread, busy, facts, interleaved, started


def same(settings: Settings) -> Iterator[Row]:
    """Before anything is compared: both sides compute the same."""
    found = facts("same")
    for cell in CELLS:
        yield Row("same", cell, found[cell], "apart at most", ("≤", 1e-9))


def machine(settings: Settings) -> Iterator[Row]:
    """Bandwidth beyond the caches, on all threads."""
    sides = {"copy": Side("bandwidth", {}), "read": Side("memory_bandwidth", {})}
    interleaved(sides, settings)
    for name, side in sides.items():
        rate = side.spread.per_second(side.facts["bytes"] / 1e9)
        yield Row("machine", f"memory: {name} of 256 MiB", rate.median, "GB/s", note=f"{side.facts['threads']} threads"
                  + (f", {side.facts['way']}" if "way" in side.facts else ", bytes read and written"), data={"turns": side.turns})


def train(settings: Settings) -> Iterator[Row]:
    """One step of each shape on each side. A step of a gru that resets before has no counterpart in torch.nn: it stands beside nn.GRU.
    charrnn multiplies as it does by default, in bfloat16 where the processor does, and in float32 as the plain side does everywhere."""
    for shape in settings.train:
        sides = {"plain": Side("train_plain", {"shape": shape}), "ours": Side("train_ours", {"shape": shape}),
                 "float32": Side("train_ours", {"shape": shape, "precision": "float32"}),
                 "limit": Side("product", {"shape": shape})}
        if shape.cell == "gru":
            sides["reset before"] = Side("train_ours", {"shape": shape, "reset": "before"})
        if shape.cell == "lstm":
            sides["own optimizer"] = Side("train_ours", {"shape": shape, "reset": "before", "own": True})
        interleaved(sides, settings)
        plain, limit = sides["plain"].spread, sides["limit"].spread.per_second(sides["limit"].facts["flops"] / 1e9)
        if sides["ours"].facts["precision"] == "float32":
            del sides["float32"]
        for name in [name for name in sides if name not in ("plain", "limit")]:
            ours = sides[name].spread
            rate, theirs = ours.per_second(shape.flops / 1e9), plain.per_second(shape.flops / 1e9)
            judged = name == "ours" and shape.target is not None
            yield Row(
                "train", shape.name + ("" if name == "ours" else f", {name}"), plain.median / ours.median, "×",
                ("≥", shape.target) if judged and shape.target else None, plain.times(1e3), ours.times(1e3), "ms",
                limit=rate.median / limit.median,
                note=f"{sides[name].facts['precision']}, {rate.median:.0f} GFLOP/s; plain {theirs.median:.0f}, "
                     f"{100 * theirs.median / limit.median:.0f} %; a product {limit.median:.0f}",
                data={"gflops": rate.median, "plain_gflops": theirs.median, "limit_gflops": limit.median, "flops": shape.flops,
                      "turns": sides[name].turns, "plain_turns": sides["plain"].turns, "limit_turns": sides["limit"].turns,
                      "facts": sides[name].facts, "plain_facts": sides["plain"].facts})


def beside(settings: Settings) -> Iterator[Row]:
    """charrnn's step with another process busy, against its own quiet one; quiet and busy turns alternate."""
    for shape in settings.busy:
        side = Side("train_ours", {"shape": shape, "reset": "before"})
        with started({"ours": side}):
            for _ in range(settings.rounds):
                side.turns.append(side.turn(settings))
                with busy():
                    side.beside.append(side.turn(settings))
        quiet, loaded = side.spread, Spread.of(side.beside)
        yield Row("busy", shape.name, loaded.median / quiet.median, "× longer", ("≤", 2.5), None, loaded.times(1e3), "ms",
                  note=f"quiet {quiet.median * 1e3:.3g} ms", data={"turns": side.turns, "busy_turns": side.beside})


def sample(settings: Settings) -> Iterator[Row]:
    """One stream, many, and the floor that reading the weights once a character sets."""
    for shape in settings.sample:
        sides = {"plain": Side("sample_plain", {"shape": shape}), "one": Side("sample_ours", {"shape": shape}),
                 "many": Side("sample_ours", {"shape": shape, "streams": settings.streams}), "read": Side("reading", {"shape": shape}),
                 "product": Side("product", {"shape": replace(shape, rows=settings.streams)})}
        if shape.cell == "gru":
            sides["before"] = Side("sample_ours", {"shape": shape, "reset": "before"})
        interleaved(sides, settings)
        rates = {name: side.spread.per_second(side.facts["tokens"]) for name, side in sides.items() if name not in ("read", "product")}
        read = sides["read"].spread.per_second(sides["read"].facts["bytes"])
        floor = read.median / shape.bytes_a_token
        name = f"{shape.cell} {shape.size}"
        data = {"turns": {key: side.turns for key, side in sides.items()}, "bytes_a_character": shape.bytes_a_token,
                "read_bytes_per_second": read.median, "facts": {key: side.facts for key, side in sides.items()}}
        for key in [key for key in ("one", "before") if key in rates]:
            yield Row("sample", name + (", reset before" if key == "before" else ""), rates[key].median / rates["plain"].median, "×",
                      ("≥", shape.target) if shape.target and key == "one" else None, rates["plain"], rates[key], "ch/s",
                      limit=rates[key].median / floor, data=data if key == "one" else {})
        yield Row("sample", f"{name}, share of the floor", 100 * rates["one"].median / floor, "%",
                  ("≥", 65.0) if shape.target else None, None, rates["one"], "ch/s",
                  note=f"floor {floor:,.0f} ch/s: {shape.bytes_a_token / 1e6:.1f} MB a character at {read.median / 1e9:.0f} GB/s "
                       f"({sides['read'].facts['way']})")
        limit = sides["product"].spread.per_second(sides["product"].facts["flops"] / 1e9).median
        gflops = rates["many"].median * 2e-9 * (shape.bytes_a_token / 4)  # two for each weight
        yield Row("sample", f"{name}, {settings.streams} streams", rates["many"].median / rates["one"].median, "× one stream",
                  ("≥", 8.0), None, rates["many"], "ch/s", limit=gflops / limit,
                  note=f"{gflops:.0f} GFLOP/s; a product of {settings.streams} rows {limit:.0f}",
                  data={"gflops": gflops, "limit_gflops": limit, "limit_turns": sides["product"].turns})
