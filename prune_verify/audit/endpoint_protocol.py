"""The Open Inference Protocol v2 as REST, in one direction: addresses, requests, and answers read strictly.

Any bytes give a value or one error type: :class:`EndpointError` where nothing can be audited (no such model, another
data type or shape), :class:`MalformedAnswerError` where a served model answered a query with something that is no
answer. The first ends in exit code 2; the second is a deviation, because the certified network never answers so.

Source: Open Inference Protocol v2, REST (KServe, Triton, MLServer, OpenVINO Model Server); certs/SPEC.md section 10.1.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Never
from urllib.parse import quote, unquote, urlsplit

import numpy as np
import numpy.typing as npt

from prune_verify.checker.encoding import MAX_DEPTH, require_shallow
from prune_verify.checker.errors import CheckError, LimitError, MalformedInputError

__all__ = [
    "Address",
    "Answer",
    "EndpointError",
    "MalformedAnswerError",
    "Wire",
    "agree",
    "parse_address",
    "read_answers",
    "request_body",
]

Loose = None | bool | int | float | str | list["Loose"] | dict[str, "Loose"]

FLOATS = ("FP32", "FP64")
INTEGERS = ("INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64")
_PATH = re.compile(r"(.*)/v2/models/([^/]+)(?:/versions/([^/]+))?/?\Z")
_FORM = "http(s)://HOST[:PORT][/PREFIX]/v2/models/NAME[/versions/VERSION]"
_LONGEST_INTEGER = 20
_PLAIN_HOSTS = ("127.0.0.1", "::1", "localhost")


class EndpointError(CheckError):
    """The endpoint cannot be audited: it is not reached, has no such model, or speaks another data type or shape."""

    code = "E_ENDPOINT"


class MalformedAnswerError(CheckError):
    """The endpoint answered a query, and the answer is not one of the protocol for this model."""

    code = "E_MALFORMED_ANSWER"


# --- the address ---


@dataclass(frozen=True)
class Address:
    """Where a model is served.

    Args:
        origin: scheme, host and port.
        prefix: path before ``/v2``, mostly empty.
        model: the model's name.
        version: or None.

    """

    origin: str
    prefix: str
    model: str
    version: str | None = None

    @property
    def ready(self) -> str:
        """Path that says whether the server is ready."""
        return f"{self.prefix}/v2/health/ready"

    @property
    def path(self) -> str:
        """Path of the model, which is that of its metadata."""
        version = "" if self.version is None else f"/versions/{quote(self.version, safe='')}"
        return f"{self.prefix}/v2/models/{quote(self.model, safe='')}{version}"

    @property
    def infer(self) -> str:
        """Path that queries go to."""
        return f"{self.path}/infer"

    @property
    def url(self) -> str:
        """The whole address."""
        return self.origin + self.path

    @property
    def in_the_clear(self) -> bool:
        """Whether somebody between here and there could answer in the server's place."""
        parts = urlsplit(self.origin)
        return parts.scheme == "http" and parts.hostname not in _PLAIN_HOSTS


def parse_address(text: str) -> Address:
    """Read the address of a served model from its text.

    Raises:
        MalformedInputError: not of the form, or with a password or a query in it.

    """
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError as error:
        raise MalformedInputError("ENDPOINT", "address of a model", _FORM, f"{text} ({error})") from None
    found = _PATH.match(parts.path)
    if parts.scheme not in ("http", "https") or not parts.hostname or found is None:
        raise MalformedInputError("ENDPOINT", "address of a model", _FORM, text)
    if parts.query or parts.fragment or "@" in parts.netloc or not text.isascii() or not text.isprintable():
        raise MalformedInputError("ENDPOINT", "address of a model", "no user, query or fragment (see --headers)", text)
    prefix, model, version = found.groups()
    origin = f"{parts.scheme}://{parts.netloc.lower()}"
    return Address(origin, prefix, unquote(model), None if version is None else unquote(version))


# --- what is sent, and what is expected back ---


@dataclass(frozen=True)
class Wire:
    """How this model is asked and answers.

    Args:
        input_name: of the one input.
        row: per-row shape of the input.
        labels: number of logits.
        output: name of the output with the logits, or None when only labels are served.
        label_output: name of an integer output with the label, or None.
        datatype: of the input: ``FP32`` or ``FP64``.

    """

    input_name: str
    row: tuple[int, ...]
    labels: int
    output: str | None
    label_output: str | None = None
    datatype: str = "FP32"

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs that are asked for."""
        return tuple(name for name in (self.output, self.label_output) if name is not None)

    def most_bytes(self, rows: int) -> int:
        """More than any honest answer to ``rows`` queries is long: numbers of up to 40 characters, and 1 MiB."""
        return 2**20 + 40 * rows * (self.labels + 1)


@dataclass(frozen=True)
class Answer:
    """What was answered to one query; the numbers are exactly those that were sent.

    Args:
        logits: of one query, where they are served.
        label: likewise.

    """

    logits: tuple[float, ...] | None = field(default=None)
    label: int | None = None


def request_body(wire: Wire, rows: npt.NDArray[np.float32]) -> bytes:
    """The JSON of one inference request for float32 rows [batch, *row]; each number is read back as the same number."""
    data = rows.astype(np.float64).reshape(-1).tolist()
    shape = [len(rows), *wire.row]
    tensor = {"name": wire.input_name, "shape": shape, "datatype": wire.datatype, "data": data}
    document = {"inputs": [tensor], "outputs": [{"name": name} for name in wire.outputs]}
    return json.dumps(document, separators=(",", ":"), allow_nan=False).encode()


@dataclass(frozen=True)
class _Strict:
    """Hooks of the JSON parser: no member twice, no NaN, nothing infinite, no huge integer."""

    path: str

    def bad(self, expected: str, got: str) -> MalformedAnswerError:
        return MalformedAnswerError(self.path, "JSON of an answer", expected, got)

    def pairs(self, items: list[tuple[str, Loose]]) -> dict[str, Loose]:
        found = dict(items)
        if len(found) != len(items):
            names = [name for name, _ in items]
            raise self.bad("each member once", next(n for n in names if names.count(n) > 1))
        return found

    def constant(self, text: str) -> Never:
        raise self.bad("a finite number", text)

    def number(self, text: str) -> float:
        value = float(text)
        if not math.isfinite(value):
            raise self.bad("a finite number", text)
        return value

    def integer(self, text: str) -> int:
        if len(text) > _LONGEST_INTEGER:
            raise self.bad("an integer of at most 64 bits", text)
        return int(text)


def _loose_json(data: bytes, path: str) -> Loose:
    """JSON with floats, as answers have them, with one reading only."""
    strict = _Strict(path)
    try:
        require_shallow(data, path, MAX_DEPTH)  # a deep nesting would end the process where the recursion limit is high
        value: Loose = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=strict.pairs,
            parse_constant=strict.constant,
            parse_float=strict.number,
            parse_int=strict.integer,
        )
    except UnicodeDecodeError as error:
        raise strict.bad("UTF-8", f"byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise strict.bad("a JSON value", f"{error.msg} at {error.pos}") from None
    except LimitError:
        raise strict.bad("few nested lists", "a deep nesting") from None
    return value


def _members(value: Loose, path: str) -> dict[str, Loose]:
    if not isinstance(value, dict):
        raise MalformedAnswerError(path, "form", "an object", type(value).__name__)
    return value


def _items(value: Loose, path: str) -> list[Loose]:
    if not isinstance(value, list):
        raise MalformedAnswerError(path, "form", "a list", type(value).__name__)
    return value


def _shape(value: Loose, path: str) -> tuple[int, ...]:
    found = []
    for item in _items(value, path):
        if isinstance(item, bool) or not isinstance(item, int):
            raise MalformedAnswerError(path, "shape", "a list of integers", repr(item)[:40])
        found.append(item)
    return tuple(found)


def _flat(value: Loose, shape: Sequence[int], path: str) -> list[Loose]:
    """The numbers in row-major order: a flat list, or lists nested as the shape says."""
    data, size = _items(value, path), math.prod(shape)
    if len(data) == size and not any(isinstance(item, list) for item in data):
        return data
    for axis, length in enumerate(shape):
        parts = [data] if axis == 0 else [_items(item, path) for item in data]
        if any(len(part) != length for part in parts):
            raise MalformedAnswerError(path, "data of an output", f"{size} numbers of shape {list(shape)}", "others")
        data = [item for part in parts for item in part]
    return data


@dataclass(frozen=True)
class _Tensor:
    path: str
    datatype: str
    shape: tuple[int, ...]
    data: list[Loose]


def _tensor(outputs: list[Loose], name: str, path: str, rows: int, most: int) -> _Tensor:
    found = [item for item in (_members(o, path) for o in outputs) if item.get("name") == name]
    if len(found) != 1:
        names = ", ".join(repr(_members(o, path).get("name"))[:40] for o in outputs) or "no output"
        raise MalformedAnswerError(path, "outputs", f"one output named {name!r}", names)
    place, item = f"{path}/{name}", found[0]
    shape = _shape(item.get("shape"), f"{place}/shape")
    if not shape or shape[0] != rows or any(n < 1 for n in shape) or math.prod(shape[1:]) != most:
        raise MalformedAnswerError(f"{place}/shape", "shape of an output", f"[{rows}, {most}]", str(list(shape))[:80])
    data = _flat(item.get("data"), shape, f"{place}/data")
    return _Tensor(place, str(item.get("datatype"))[:40], shape, data)


def _require_datatype(tensor: _Tensor, among: Sequence[str]) -> None:
    if tensor.datatype not in among:
        expected = "one of " + ", ".join(among)
        raise MalformedAnswerError(f"{tensor.path}/datatype", "data type of an output", expected, tensor.datatype)


def _logits(tensor: _Tensor) -> list[float]:
    _require_datatype(tensor, FLOATS)
    for place, item in enumerate(tensor.data):
        if isinstance(item, bool) or not isinstance(item, int | float):
            raise MalformedAnswerError(f"{tensor.path}/data/{place}", "logit", "a number", repr(item)[:40])
    return [float(item) for item in tensor.data if isinstance(item, int | float)]


def _labels(tensor: _Tensor, labels: int) -> list[int]:
    _require_datatype(tensor, INTEGERS)
    for place, item in enumerate(tensor.data):
        if isinstance(item, bool) or not isinstance(item, int) or not 0 <= item < labels:
            expected = f"an integer from 0 to {labels - 1}"
            raise MalformedAnswerError(f"{tensor.path}/data/{place}", "label", expected, repr(item)[:40])
    return [item for item in tensor.data if isinstance(item, int)]


def read_answers(wire: Wire, data: bytes, rows: int) -> list[Answer]:
    """Read the answer to one request.

    Args:
        wire: how the model answers.
        data: the body of an answer with status 200.
        rows: how many queries were asked.

    Returns:
        One answer per query.

    Raises:
        MalformedAnswerError: not strict JSON, an output is missing or there twice, or has another data type, shape or
            number of values, or a value that is not finite or no label.

    """
    outputs = _items(_members(_loose_json(data, "answer"), "answer").get("outputs"), "answer/outputs")
    logits: list[tuple[float, ...] | None] = [None] * rows
    labels: list[int | None] = [None] * rows
    if wire.output is not None:
        values = _logits(_tensor(outputs, wire.output, "answer/outputs", rows, wire.labels))
        logits = [tuple(values[r * wire.labels : (r + 1) * wire.labels]) for r in range(rows)]
    if wire.label_output is not None:
        labels = list(_labels(_tensor(outputs, wire.label_output, "answer/outputs", rows, 1), wire.labels))
    return [Answer(one, label) for one, label in zip(logits, labels, strict=True)]


# --- the metadata ---


def agree(wire: Wire, data: bytes, batch: int) -> Wire:
    """Compare a model's metadata with what will be asked; lists that are empty or missing say nothing.

    Args:
        wire: as wished, by the certified network and the options.
        data: the body of the metadata.
        batch: queries in one request.

    Returns:
        The same with the data type of the input that the server names.

    Raises:
        EndpointError: not metadata, another input or output, or another data type or shape.

    """
    try:
        document = _members(_loose_json(data, "metadata"), "metadata")
        inputs = _listed(document, "inputs")
        outputs = _listed(document, "outputs")
    except MalformedAnswerError as error:
        raise EndpointError(error.path, error.rule, error.expected, error.got) from None
    datatype = wire.datatype
    if inputs:
        datatype = _only(inputs, wire.input_name, "inputs", "--input NAME", FLOATS)
        _require_shape(inputs[wire.input_name][1], (batch, *wire.row), f"metadata/inputs/{wire.input_name}/shape")
        if len(inputs) > 1:
            raise EndpointError("metadata/inputs", "inputs of the model", "one", ", ".join(inputs))
    if outputs and wire.output is not None:
        _only(outputs, wire.output, "outputs", "--output NAME, or only --label-output NAME", FLOATS)
    if outputs and wire.label_output is not None:
        _only(outputs, wire.label_output, "outputs", "--label-output NAME", INTEGERS)
    return Wire(wire.input_name, wire.row, wire.labels, wire.output, wire.label_output, datatype)


def _listed(document: dict[str, Loose], which: str) -> dict[str, tuple[str, tuple[int, ...]]]:
    found: dict[str, tuple[str, tuple[int, ...]]] = {}
    raw = document.get(which)
    for item in [] if raw is None else _items(raw, f"metadata/{which}"):
        one = _members(item, f"metadata/{which}")
        name, datatype = one.get("name"), one.get("datatype")
        if not isinstance(name, str) or not isinstance(datatype, str) or name in found:
            raise MalformedAnswerError(f"metadata/{which}", "form", "names, each once, with data types", repr(one)[:80])
        found[name] = (datatype, _shape(one.get("shape"), f"metadata/{which}/{name}/shape"))
    return found


def _only(
    listed: dict[str, tuple[str, tuple[int, ...]]], name: str, which: str, option: str, among: Sequence[str]
) -> str:
    if name not in listed:
        raise EndpointError(
            f"metadata/{which}", f"{name!r}; choose with {option}", f"a tensor {name}", ", ".join(listed)
        )
    if listed[name][0] not in among:
        expected = "one of " + ", ".join(among)
        raise EndpointError(f"metadata/{which}/{name}/datatype", "data type", expected, listed[name][0])
    return listed[name][0]


def _require_shape(served: tuple[int, ...], wished: tuple[int, ...], path: str) -> None:
    """Refuse another shape; -1 is any length, and a first axis of another length than the batch is named."""
    if len(served) != len(wished) or any(a not in (-1, b) for a, b in zip(served[1:], wished[1:], strict=True)):
        raise EndpointError(path, "shape of the input", str([-1, *wished[1:]]), str(list(served)))
    if served[0] not in (-1, wished[0]):
        raise EndpointError(path, "queries in one request (--batch)", str(served[0]), str(wished[0]))
