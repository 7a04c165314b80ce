"""Changes to inputs of the fuzz targets: of plain bytes, and of the forms that hold bytes together (JSON, proofs, ONNX)."""

from __future__ import annotations

import base64
import binascii
import json
import random
from collections.abc import Iterator

import numpy as np
import onnx
from google.protobuf.message import DecodeError

LARGEST = 2**15
DEEP = b"[" * 40 + b"]" * 40
SPECIAL_JSON = (
    None, True, False, 0, 1, -1, 2, 31, 255, 2**31, 2**53 - 1, 2**53, -(2**63), 10**40, 0.5, 1e308, "", "0", "-0", "1.0",
    "00", "1e5", "1" * 64, "0." + "0" * 62, "\u0661", "\u202e", "\ud7ff", "\x00", "a/../b", "00000000", "7f800000", "ffc00000",
    "3f800000", "80000000", "00000001", "ab" * 32, "AB" * 32, "2026-01-01T00:00:00Z", "9999-12-31T23:59:60Z", "=", "AA==", "AB==",
    [], {}, [[]], [None], {"": None},
)  # fmt: skip
SPECIAL_BYTES = (
    b"\x00", b"\xff", b"\x7f", b"\x80", b"\n", b"{", b"}", b"[", b"]", b'"', b"\\", b",", b":", b"-", b"e9", b"\xef\xbb\xbf",
    b"\xed\xa0\x80", b"\\ud800", b"NaN", b"Infinity", b"1e400", b"\xff\xff\xff\xff\x0f", b"\x00\x00\xc0\x7f", b"\x00\x00\x80\x7f", DEEP,
)  # fmt: skip
SPECIAL_FLOATS = (0.0, -0.0, 1e30, -1e30, 3.4e38, 1e-40, 2.0**-149, float("nan"), float("inf"), 1.0)
SPECIAL_INTS = (0, 1, 2, 3, -1, -2, 7, 255, 2**31 - 1, 2**31, -(2**31), 2**63 - 1, -(2**63), 2**40, 10)


def canonical(value: object) -> bytes:
    """Sorted keys and no spaces, for values without floats the bytes of RFC 8785."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")


def mutate_bytes(rng: random.Random, data: bytes, pool: list[bytes]) -> bytes:
    """One to four changes that know nothing of the form: flips, special bytes, cuts, repeats, splices."""
    out = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at, length = rng.randrange(len(out) + 1), rng.choice((1, 1, 2, 4, 8, 32))
        match rng.randrange(7):
            case 0 if out:
                out[min(at, len(out) - 1)] ^= 1 << rng.randrange(8)
            case 1:
                out[at : at + rng.randrange(2) * length] = rng.choice(SPECIAL_BYTES)
            case 2:
                del out[at : at + length]
            case 3:
                out[at:at] = out[at : at + length] * rng.choice((1, 2, 50))
            case 4:
                other = rng.choice(pool)
                start = rng.randrange(len(other) + 1)
                out[at : at + length] = other[start : start + rng.choice((4, 32, 512))]
            case 5:
                out[at : at + length] = rng.randbytes(length)
            case _:
                found = bytes(out)
                digits = [i for i, c in enumerate(found) if 48 <= c <= 57]
                if digits:
                    out[rng.choice(digits)] = rng.choice(b"0123456789")
    return bytes(out[:LARGEST])


def _places(value: object, path: tuple[object, ...] = ()) -> Iterator[tuple[object, ...]]:
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from _places(item, (*path, key))


def mutate_value(rng: random.Random, value: object) -> object:  # noqa: C901 - a table of changes
    """One place of a JSON value replaced, removed, repeated or renamed."""
    places = list(_places(value))
    path = rng.choice(places)
    if not path:
        return rng.choice(SPECIAL_JSON) if rng.random() < 0.05 else value
    holder = value
    for key in path[:-1]:
        holder = holder[key]  # type: ignore[index]
    key, kind = path[-1], rng.randrange(7)
    old = holder[key]  # type: ignore[index]
    if kind == 0:
        del holder[key]  # type: ignore[attr-defined]
    elif kind == 1 and isinstance(holder, list):
        holder.insert(rng.randrange(len(holder) + 1), json.loads(json.dumps(old)))
    elif kind == 2 and isinstance(holder, dict):
        holder[rng.choice(("", "x", str(key) + "s", "\u202e"))] = holder.pop(key)
    elif kind == 3 and isinstance(old, str):
        at = rng.randrange(len(old) + 1)
        holder[key] = old[:at] + rng.choice(("0", "f", "-", "/", "\x7f", "é", "")) + old[at + rng.randrange(2) :]  # type: ignore[index]
    elif kind == 4 and isinstance(old, int):
        holder[key] = old + rng.choice((-1, 1, 2**32))  # type: ignore[index]
    elif kind == 5:
        other = value
        for step in rng.choice(places):
            other = other[step] if step in other or isinstance(step, int) else other  # type: ignore[index,operator]
            if not isinstance(other, dict | list):
                break
        holder[key] = json.loads(json.dumps(other))  # type: ignore[index]
    else:
        holder[key] = rng.choice(SPECIAL_JSON)  # type: ignore[index]
    return value


def mutate_document(rng: random.Random, data: bytes, pool: list[bytes]) -> bytes:
    """A JSON document changed in one place and written canonically again; a payload inside an envelope as well."""
    try:
        value = json.loads(data[1:])
        inner = value.get("payload") if isinstance(value, dict) and rng.random() < 0.5 else None
        if isinstance(inner, str):
            value["payload"] = base64.b64encode(
                canonical(mutate_value(rng, json.loads(base64.b64decode(inner))))
            ).decode()
        else:
            value = mutate_value(rng, value)
        return (data[:1] + canonical(value))[:LARGEST]
    except (ValueError, IndexError, KeyError, TypeError, RecursionError, binascii.Error):
        return mutate_bytes(rng, data, pool)


def mutate_proof(rng: random.Random, data: bytes, pool: list[bytes]) -> bytes:
    """The header changed in one place and written canonically, or the arrays changed."""
    parts = data.split(b"\n", 2)
    if len(parts) != 3:
        return mutate_bytes(rng, data, pool)
    if rng.random() < 0.3:
        return b"\n".join((parts[0], parts[1], mutate_bytes(rng, parts[2], pool)))
    try:
        header = canonical(mutate_value(rng, json.loads(parts[1])))
    except (ValueError, IndexError, KeyError, TypeError, RecursionError):
        return mutate_bytes(rng, data, pool)
    return b"\n".join((parts[0], header, parts[2]))[:LARGEST]


def mutate_network(rng: random.Random, data: bytes, pool: list[bytes]) -> bytes:
    """A protobuf changed in one place: shapes, attributes, numbers, edges, operators, nodes of another model."""
    model, other = onnx.ModelProto(), onnx.ModelProto()
    try:
        model.ParseFromString(data)
        other.ParseFromString(rng.choice(pool))
        _change_model(rng, model, other)
        return bytes(model.SerializeToString())
    except (DecodeError, UnicodeDecodeError, TypeError, ValueError):  # what is no protobuf is changed as bytes
        return mutate_bytes(rng, data, pool)


def _change_model(rng: random.Random, model: onnx.ModelProto, other: onnx.ModelProto) -> None:  # noqa: C901, PLR0912 - a table of changes
    graph = model.graph
    nodes, tensors = list(graph.node), list(graph.initializer)
    node = rng.choice(nodes) if nodes else None
    tensor = rng.choice(tensors) if tensors else None
    names = [v.name for v in graph.input] + [t.name for t in tensors] + [o for v in nodes for o in v.output] + [""]
    kind = rng.randrange(12)
    if kind == 0 and node and node.attribute:
        attribute = rng.choice(node.attribute)
        if attribute.ints:
            attribute.ints[rng.randrange(len(attribute.ints))] = rng.choice(SPECIAL_INTS)
        else:
            attribute.i, attribute.f = rng.choice(SPECIAL_INTS), rng.choice(SPECIAL_FLOATS)
    elif kind == 1 and node and node.attribute:
        del node.attribute[rng.randrange(len(node.attribute))]
    elif kind == 2 and node and node.input:
        node.input[rng.randrange(len(node.input))] = rng.choice(names)
    elif kind == 3 and node:
        node.op_type = rng.choice([v.op_type for v in other.graph.node] or ["Relu"])
    elif kind == 4 and node:
        graph.node.remove(node)
    elif kind == 5 and other.graph.node:
        graph.node.insert(rng.randrange(len(nodes) + 1), rng.choice(other.graph.node))
    elif kind == 6 and other.graph.initializer:
        graph.initializer.append(rng.choice(other.graph.initializer))
    elif kind == 7 and tensor and tensor.dims:
        tensor.dims[rng.randrange(len(tensor.dims))] = rng.choice(SPECIAL_INTS)
    elif kind == 8 and tensor and tensor.raw_data:
        at = 4 * rng.randrange(max(1, len(tensor.raw_data) // 4))
        value = np.float32(rng.choice(SPECIAL_FLOATS)).tobytes()
        tensor.raw_data = tensor.raw_data[:at] + value + tensor.raw_data[at + 4 :]
    elif kind == 9 and tensor:
        tensor.data_type = rng.randrange(20)
    elif kind == 10 and graph.output:
        shape = rng.choice([*graph.input, *graph.output, *graph.value_info]).type.tensor_type.shape
        shape.dim.add().dim_value = rng.choice(SPECIAL_INTS)
        if rng.random() < 0.7:
            del shape.dim[rng.randrange(len(shape.dim))]
    else:
        for item in model.opset_import:
            item.version = rng.randrange(7, 26)
        model.ir_version = rng.randrange(3, 14)
