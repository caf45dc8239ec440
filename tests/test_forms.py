"""The cells that were tried are what their papers say: equal to naive forms, the state carried, and none sees what it is to predict."""

import json

import pytest
import torch
from torch.testing import assert_close

from benchmarks import cells, forms
from benchmarks.forms import FORMS, Form, Tried
from charrnn.config import ModelConfig
from charrnn.model import Model

V, E, H, B, T = 7, 3, 5, 2, 6
CONFIG = ModelConfig(vocabulary=V, embedding=E, hidden=H)


def made(form, config=CONFIG):
    """A model in float64, none of whose weights is at a value that hides it."""
    generator = torch.Generator().manual_seed(1)
    model = Tried(form, config, generator).double()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn(p.shape, generator=generator, dtype=p.dtype), alpha=0.3)
    return model


def tokens(count=T):
    return torch.randint(V, (count, B), generator=torch.Generator().manual_seed(2))


def sigma(x):
    return 1 / (1 + torch.exp(-x))


def lstm_by_hand(layer, x, h, c, seen=None):
    """One step, each gate by itself; `seen`: what stands in place of h in the products."""
    i, f, g, o = (x @ layer.w_x[:, n * H : (n + 1) * H] + (h if seen is None else seen) @ layer.w_h[:, n * H : (n + 1) * H]
                  + layer.b[n * H : (n + 1) * H] for n in range(4))
    c = sigma(f) * c + sigma(i) * torch.tanh(g)
    return sigma(o) * torch.tanh(c), c


@pytest.mark.parametrize("layers", [1, 2])
def test_the_lstm_is_charrnns_and_so_are_its_gradients(layers):
    config = ModelConfig(vocabulary=V, embedding=E, hidden=H, layers=layers)
    tried, ours = made(Form(layers=layers), config), Model(config).double()
    ours.load_state_dict(tried.state_dict())
    grads = []
    for model in (tried, ours):
        logits, state = model(tokens(), model.zero_state(B))
        logits, _ = model(tokens().flip(0), state)
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens().flatten()).backward()
        grads.append([logits, *(p.grad for _, p in sorted(model.named_parameters()))])
    for a, b in zip(*grads):
        assert_close(a, b, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", FORMS)
def test_the_whole_is_its_pieces_and_later_tokens_change_nothing(name):
    model, ids = made(FORMS[name]), tokens()
    with torch.no_grad():
        whole, _ = model(ids, model.zero_state(B))
        first, state = model(ids[:4], model.zero_state(B))
        single, state = model(ids[4:5], state)
        last, _ = model(ids[5:], state)
        assert_close(torch.cat([first, single, last]), whole, rtol=0, atol=1e-12)
        changed, _ = model(torch.cat([ids[:3], (ids[3:] + 1) % V]), model.zero_state(B))
    assert_close(changed[:3], whole[:3], rtol=0, atol=1e-12)
    assert (changed[3] - whole[3]).abs().min() > 1e-6
    other, _ = model(torch.cat([(ids[:1] + 1) % V, ids[1:]]), model.zero_state(B))
    assert (other[-1] - whole[-1]).abs().max() > 1e-9  # what was read is remembered


@pytest.mark.parametrize("count", [1, 2, 7, 64])
def test_the_scan_is_the_loop_and_so_are_its_gradients(count):
    generator = torch.Generator().manual_seed(3)
    a, b, h = (torch.rand(shape, generator=generator, dtype=torch.double).requires_grad_()
               for shape in ((count, B, H), (count, B, H), (B, H)))
    found = []
    for form in (forms.scan, forms.stepped):
        outputs = form(a, b, h)
        found.append([outputs, *torch.autograd.grad((outputs * torch.arange(1.0, count + 1)[:, None, None]).sum(), (a, b, h))])
    for one, other in zip(*found):
        assert_close(one, other, rtol=0, atol=1e-11)


@pytest.mark.parametrize("rounds, rank", [(0, 0), (1, 0), (2, 0), (5, 0), (4, 2)])
def test_the_mogrifier_is_its_equations_and_without_rounds_the_lstm(rounds, rank):
    layer = made(Form(forms.mogrifier(rounds, rank))).layers[0]
    generator = torch.Generator().manual_seed(4)
    x, h, c = (torch.randn(shape, generator=generator, dtype=torch.double) for shape in ((1, B, E), (B, H), (B, H)))
    mixers = [pair[0] @ pair[1] if rank else pair[0] for pair in layer.mixers]
    u, m = x[0], h
    for number, matrix in enumerate(mixers, 1):
        if number % 2:
            u = 2 * sigma(m @ matrix) * u
        else:
            m = 2 * sigma(u @ matrix) * m
    outputs, state = layer(x, (h, c))
    for a, b in zip(state, lstm_by_hand(layer, u, h, c, m)):
        assert_close(a, b, rtol=0, atol=1e-12)
    assert_close(outputs[0], state[0])


def test_a_new_mogrifier_is_an_lstm():
    left, right = (Tried(FORMS[name], CONFIG, torch.Generator().manual_seed(1)) for name in ("mogrifier-low", "lstm"))
    assert left.load_state_dict(right.state_dict(), strict=False).unexpected_keys == []
    assert_close(left(tokens(), left.zero_state(B))[0], right(tokens(), right.zero_state(B))[0])


def test_the_multiplicative_lstm_and_the_gates_of_the_input_alone_are_their_equations():
    generator = torch.Generator().manual_seed(4)
    x, before, h, c = (torch.randn(shape, generator=generator, dtype=torch.double) for shape in ((1, B, E), (B, E), (B, H), (B, H)))
    layer = made(FORMS["multiplicative"]).layers[0]
    for a, b in zip(layer(x, (h, c))[1], lstm_by_hand(layer, x[0], h, c, (x[0] @ layer.w_mx) * (h @ layer.w_mh))):
        assert_close(a, b, rtol=0, atol=1e-12)
    layer = made(FORMS["mingru"]).layers[0]
    z = sigma(x[0] @ layer.w_x[:, :H] + layer.b[:H])
    assert_close(layer(x, (h,))[0][0], (1 - z) * h + z * (x[0] @ layer.w_x[:, H:] + layer.b[H:]))
    layer = made(FORMS["qrnn"]).layers[0]
    z, g, o = (before @ layer.w_x[:E, part] + x[0] @ layer.w_x[E:, part] + layer.b[part]
               for part in (slice(0, H), slice(H, 2 * H), slice(2 * H, None)))
    cell = (1 - sigma(z)) * c + sigma(z) * torch.tanh(g)
    assert_close(layer(x, (c, before))[0][0], sigma(o) * cell)


def test_layer_norm_does_not_see_the_size_of_its_products():
    model = made(FORMS["norm"])
    before, _ = model(tokens(), model.zero_state(B))
    with torch.no_grad():
        model.layers[0].w_h.mul_(7)
        model.layers[0].w_x.mul_(0.3)
    after, _ = model(tokens(), model.zero_state(B))
    assert_close(after, before, rtol=0, atol=1e-3)
    with torch.no_grad():
        model.layers[0].w_h[:, 0] *= 7
    assert (model(tokens(), model.zero_state(B))[0] - before).abs().max() > 0.01


@pytest.mark.parametrize("size", [H, E])
def test_a_tied_model_is_one_whose_two_matrices_are_the_same(size):
    config = ModelConfig(vocabulary=V, embedding=size, hidden=H)
    tied, apart = made(FORMS["tied"], config), Model(config).double()
    with torch.no_grad():
        apart.layers[0].load_state_dict(tied.layers[0].state_dict())
        apart.embedding[:V] = tied.output["w"].t() * size**0.5
        apart.embedding[V:] = tied.embedding
        projection = torch.eye(H, dtype=torch.double) if tied.projection is None else tied.projection
        apart.output["w"].copy_(projection @ tied.output["w"])
        apart.output["b"].copy_(tied.output["b"])
    ids = torch.cat([torch.full((1, B), V), tokens()])
    assert_close(tied(ids, tied.zero_state(B))[0], apart(ids, apart.zero_state(B))[0], rtol=0, atol=1e-12)
    assert (tied.projection is None) == (size == H)


def test_what_the_output_layer_sees_beside_the_state_and_what_is_added():
    skip = made(FORMS["skip"])
    outputs, _ = skip.hidden(tokens(), skip.zero_state(B))
    assert_close(outputs[:, :, H:], skip.embedding[tokens()])
    residual, deep = made(FORMS["residual"]), made(FORMS["deep"])
    deep.load_state_dict(residual.state_dict())
    lower, _ = residual.layers[0](residual.embedding[tokens()], residual.layers[0].zero_state(B))
    assert_close(residual.hidden(tokens(), residual.zero_state(B))[0] - deep.hidden(tokens(), deep.zero_state(B))[0], lower)


@pytest.mark.parametrize("name, products", [
    ("lstm", 4 * H * H + H * V), ("skip", 4 * H * H + H * V), ("norm", 4 * H * H + H * V), ("multiplicative", 5 * H * H + H * V),
    ("mogrifier-2", 4 * H * (H + E) + 2 * H * E + H * V), ("deep", 12 * H * H + H * V), ("mingru", 4 * H * H + H * V),
    ("qrnn", 6 * H * H + H * V), ("tied", 4 * H * H + H * E + E * V)])
def test_the_products_of_a_character_are_those_that_no_table_spares(name, products):
    assert made(FORMS[name]).products() == products


def test_trials_learn_and_those_in_the_log_are_not_run_again(tmp_path, monkeypatch, capsys):
    text, log = tmp_path / "text.txt", tmp_path / "log.jsonl"
    text.write_text("abcdefgh" * 400)
    monkeypatch.setattr(cells.machine, "prepare", lambda: None)
    asked = [str(text), "lstm", "mogrifier", "--hidden", "8", "--embedding", "4", "--steps", "60", "--batch", "4", "--window", "8",
             "--equal", "--threads", str(torch.get_num_threads()), "--log", str(log)]
    assert cells.main(asked) == 0
    first = capsys.readouterr().out
    found = list(map(json.loads, log.read_text().splitlines()))
    assert [line["form"] for line in found] == ["lstm", "mogrifier"] and found[0]["nats"] < 1 < 2.08  # a uniform guess
    assert found[1]["steps"] == round(60 / found[1]["cost"]) < found[0]["steps"] == 60
    monkeypatch.setattr(cells, "train", None)
    assert cells.main(asked) == 0
    assert capsys.readouterr().out == first
    with pytest.raises(SystemExit):
        cells.main([str(text), "lstn"])
