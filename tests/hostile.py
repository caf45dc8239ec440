"""Run files as strangers may make them: valid digests over whatever they like."""

import hashlib
import json
import pickle
import random
import struct
import zipfile
from io import BytesIO

import numpy as np

from charrnn.container import sealed

LEAD = b'{"__metadata__":{"charrnn":"{\\"sha256\\":\\"'
PLACE = slice(8 + len(LEAD), 8 + len(LEAD) + 64)


def digested(data):
    """The same bytes with the digest that they should have."""
    data = bytearray(data)
    if len(data) >= PLACE.stop:
        data[PLACE] = b"0" * 64
        data[PLACE] = hashlib.sha256(data).hexdigest().encode()
    return bytes(data)


def parts(data):
    """Header (bytes) and tensors (bytes) of a file."""
    end = 8 + int.from_bytes(data[:8], "little")
    return data[8:end], data[end:]


def joined(header, tensors):
    """The reverse, with the right length and digest."""
    return digested(len(header).to_bytes(8, "little") + header + tensors)


def mutated(data, chance, other=b""):
    """Bytes changed as storage, transport and malice do: bits flipped, cut, swapped, doubled, zeroed, noise, parts of another file."""
    out = bytearray(data)
    for _ in range(chance.choice([1, 1, 1, 2, 8])):
        size = len(out)
        if not size:
            break
        place = chance.randrange(chance.choice([size, min(size, 1500)]))  # the header is as often hit as the weights
        stop = min(size, place + chance.choice([1, 2, 4, 16, 200]))
        kind = chance.randrange(8 if other else 7)
        if kind == 0:
            out[place] ^= 1 << chance.randrange(8)
        elif kind == 1:
            del out[place:stop]
        elif kind == 2:
            from_ = chance.randrange(size)
            out[place:stop], out[from_ : from_ + stop - place] = out[from_ : from_ + stop - place], out[place:stop]
        elif kind == 3:
            out[place:place] = out[place:stop]
        elif kind == 4:
            out[place:stop] = bytes(stop - place)
        elif kind == 5:
            out[place:stop] = chance.randbytes(stop - place)
        elif kind == 6:
            del out[place:]
        else:
            out[:place] = other[:place]
    return bytes(out)


class Bomb:
    """A pickle that would run code."""

    def __reduce__(self):
        return print, ("code was run",)


def hostile(tensors, about):
    """Hostile files by name, each made of a good run's tensors and description; the large ones as functions."""
    good = sealed(tensors, about)
    header, body = parts(good)
    files = {}

    def edited(name, old, new, count=1):
        assert old in header, name
        files[name] = joined(header.replace(old, new, count), body)

    def about_with(**changes):
        return sealed(tensors, {**about, **changes})

    def part(of, **changes):
        return about_with(**{of: {**about[of], **changes}})

    def tensor(name, value):
        return sealed({**tensors, name: value}, about)

    def described(text):
        """A file whose JSON is this text."""
        inner = json.dumps('{"sha256":"' + "0" * 64 + '",' + text[1:]).encode()
        return joined(b'{"__metadata__":{"charrnn":' + inner + b"}}", b"")

    ours = json.dumps({"format": 1, **about}, sort_keys=True, separators=(",", ":"))
    zipped, archive = BytesIO(), BytesIO()
    with zipfile.ZipFile(zipped, "w") as file:
        file.writestr("data.pkl", pickle.dumps(Bomb()))
    np.savez(archive, a=np.zeros(3))
    nothing = b'"%07x":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    crowd = b'{"__metadata__":{"charrnn":' + json.dumps('{"sha256":"' + "0" * 64 + '",' + ours[1:]).encode() + b"},"
    huge = {**about, "model": {**about["model"], "hidden": 65536, "embedding": 65536, "layers": 64}}
    table = header[header.index(b"},") :]

    files |= {
        "empty": b"",
        "eight bytes": bytes(8),
        "noise": random.Random(1).randbytes(20_000),
        "a text": "Trăm năm trong cõi người ta\n".encode() * 100,
        "a pickle": pickle.dumps(Bomb()),
        "a zip with a pickle": zipped.getvalue(),
        "a numpy archive": archive.getvalue(),
        "a script": b"#!/bin/sh\necho code was run\n",
        "a header without end": digested(b"\xff" * 8 + good[8:]),
        "a header longer than the file": digested(struct.pack("<Q", len(good)) + good[8:]),
        "a header of no length": digested(bytes(8) + good[8:]),
        "a header a byte short": digested(struct.pack("<Q", len(header) - 1) + good[8:]),
        "a header a byte long": digested(struct.pack("<Q", len(header) + 1) + good[8:]),
        "a million empty tensors": lambda: joined(crowd + b",".join(nothing % number for number in range(1_150_000)) + b"}", b""),
        "five thousand tensors": joined(crowd + b",".join(nothing % number for number in range(5_000)) + b"}", b""),
        "deep JSON in the table": joined(header[: -len(table)] + b'},"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}", body),
        "deep JSON of ours": lambda: described('{"a":' + "[" * 400_000 + "]" * 400_000 + "}"),
        "ten million lists": lambda: described('{"a":[' + "[]," * 4_000_000 + "1]}"),
        "two million names": lambda: described("{" + ",".join(f'"{number:x}":1' for number in range(1_200_000)) + "}"),
        "a long string": lambda: described('{"a":"' + "x" * 40_000_000 + '"}'),
        "all the values that are let through": lambda: described(
            '{"format":1,"x":["' + "q" * 12_000_000 + '"' + ',"abcd"' * 390_000 + "]}"),
        "all the names that are let through": lambda: described(
            '{"format":1,' + ",".join(f'"x{number:05x}":{{}}' for number in range(19_000)) + "}"),
        "JSON after JSON": described(ours + "{}"),
        "JSON with spaces": described(ours.replace('"format":1', '"format": 1')),
        "a name twice in ours": described(ours.replace('"format":1', '"format":1,"format":1')),
        "NaN in JSON": described(ours.replace('"step":3', '"step":NaN')),
        "infinity in JSON": described(ours.replace('"step":3', '"step":1e999')),
        "a number of 5,000 digits": described(ours.replace('"step":3', '"step":' + "9" * 5_000)),
        "a number of 300 digits": described(ours.replace('"step":3', '"step":' + "9" * 300)),
        "no JSON at all": described("{nonsense}"),
        "not ours": joined(header.replace(b"charrnn", b"charmrn", 1), body),
        "a tensor twice": joined(header.replace(b'"unigram"', b'"tokenizer"'), body),
        "bytes after the tensors": joined(header, body + b"\0"),
        "bytes missing": joined(header, body[:-1]),
        "a gap": joined(header, bytes(8) + body),
        "spaces without end in the header": lambda: joined(header + b" " * (20 << 20), body),
        "control characters in the header": joined(header.replace(b'"unigram"', b'"uni\x1b[2Jgram"'), body),
        "another order": sealed({name: tensors[name] for name in tensors if name != "unigram"}, about),
        "a name of a megabyte": sealed({**tensors, "x" * 900_000: np.zeros(0, np.float32)}, about),
        "a name with escapes": sealed({**tensors, "\x1b]0;x\x07\u202e": np.zeros(0, np.float32)}, about),
        "layers of 65,536 units": sealed(tensors, huge),
        "a format of text": about_with(format="1"),
        "a format of the future": about_with(format=2),
        "no kind": about_with(kind=None),
        "a kind with escapes": about_with(kind="\x1b[2J"),
        "a field too many": about_with(more=1),
        "a model that is a list": about_with(model=[]),
        "no units": part("model", hidden=0),
        "units below none": part("model", hidden=-5),
        "half a unit": part("model", hidden=3.5),
        "true layers": part("model", layers=True),
        "a cell of no kind": part("model", cell="\x1b[2J"),
        "a vocabulary of millions": part("model", vocabulary=2**24),
        "a training option too many": part("training", more=1),
        "a time without end": part("training", time="1e999h"),
        "a tokenizer that is a list": about_with(tokenizer=[]),
        "a level of no kind": part("tokenizer", level="../../etc/passwd"),
        "characters unsorted": part("tokenizer", characters="zyxwvutsr"[: len(about["tokenizer"]["characters"])]),
        "characters that are half": part("tokenizer", characters="\ud800"),
        "a text without a name": part("text", name=None),
        "a text with a path for a name": part("text", name="../../etc/passwd"),
        "a text with a name that goes up": part("text", name=".."),
        "a text with escapes in its name": part("text", name="a\x1b]0;x\x07"),
        "a text with a digest of words": part("text", digest="\x1b[2J"),
        "a text of no characters": part("text", characters=0),
        "a text of less than none": part("text", validation_tokens=-1),
        "figures that are a list": about_with(metrics=[]),
        "a figure that is a list": part("metrics", step=[]),
        "a curve of numbers": part("metrics", curve=[1, 2, 3]),
        "a curve of pairs": part("metrics", curve=[[1, 2.0]]),
        "a curve of enormous losses": part("metrics", curve=[[1, 1e308, -1e308]]),
        "a plan that is a text": part("metrics", plan="\x1b[2J"),
        "a fingerprint below nothing": about_with(fingerprint_below="0"),
        "a fingerprint below a word": about_with(fingerprint_below="-1"),
        "a fingerprint without order": tensor("fingerprint", np.array([5, 3], np.uint64)),
        "a fingerprint of floats": tensor("fingerprint", np.zeros(3)),
        "counts below none": tensor("unigram", -tensors["unigram"] - 1),
        "counts without end": tensor("unigram", tensors["unigram"] + 2**62),
        "a tokenizer of floats": tensor("tokenizer", np.zeros(3)),
        "bytes that its level has not": tensor("tokenizer", np.zeros(3, np.uint8)),
        "a weight that is no number": tensor("weights.output.b", np.full_like(tensors["weights.output.b"], np.nan)),
        "an infinite weight": tensor("weights.output.b", np.full_like(tensors["weights.output.b"], np.inf)),
        "weights of another type": tensor("weights.output.b", tensors["weights.output.b"].astype(np.float64)),
        "weights turned round": tensor("weights.output.w", tensors["weights.output.w"].T.copy()),
        "weights too many": tensor("weights.more", np.zeros(2, np.float32)),
        "a tensor too many": tensor("more", np.zeros(2, np.float32)),
    }
    edited("a shape of 2^62", b'"shape":[', b'"shape":[4611686018427387904,')
    edited("a shape below none", b'"shape":[', b'"shape":[-1,')
    edited("a shape of halves", b'"shape":[', b'"shape":[1.5,')
    edited("a shape of many sides", b'"shape":[', b'"shape":[1,1,1,1,1,1,1,1,')
    edited("a type of no kind", b'"dtype":"F32"', b'"dtype":"F31"')
    edited("a type that is a list", b'"dtype":"F32"', b'"dtype":["F"]')
    edited("offsets that overlap", b'"data_offsets":[', b'"data_offsets":[0,0,')
    edited("offsets past the end", b'"data_offsets":[0,', b'"data_offsets":[0,99999999')
    edited("offsets below none", b'"data_offsets":[0,', b'"data_offsets":[-8,')
    edited("a field too many in the table", b'"dtype":', b'"more":1,"dtype":')
    return files
