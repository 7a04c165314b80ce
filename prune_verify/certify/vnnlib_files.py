"""Goals as VNN-LIB properties, for other tools: the negation of one record's goals, ``sat`` where one of them fails.

VNN-LIB 1.0 speaks of one network and has ``<=`` and ``>=`` only: its negation of an atom ``c . y >= least`` is
``c . y <= least``, so that ``unsat`` proves the goals, and a ``sat`` at equality refutes nothing unless atoms are
strict. It compares an output with a number or with another output; other atoms become outputs of their own
(:func:`with_margins`). VNN-LIB 2.0 declares base and patched network side by side, with equal inputs, and is exact.

Numbers are written in full: a float64 is a finite decimal. A number of more than 80 digits, which the 1.0 reader of the
checker does not take, is rounded outward there, so that the property asks for more.

Source: VNN-LIB 1.0 and 2.0 (VNNLIB-Standard, chapter Query Language); rules of VNN-COMP for counterexamples.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from prune_verify.checker.errors import MalformedInputError, UnsupportedVersionError
from prune_verify.checker.goals import Goals
from prune_verify.checker.interval import Box, Floats
from prune_verify.checker.network import Network, Node

__all__ = [
    "margin_rows",
    "pair_property_text",
    "parse_counterexample",
    "property_text",
    "with_margins",
    "write_counterexample",
]

_PLACES = 40  # digits before and after the point that the checker's reader takes
_NUMBER = re.compile(r"-?[0-9]{1,60}(\.[0-9]{1,120})?([eE][-+]?[0-9]{1,3})?")
_VALUE = re.compile(r"\(\s*([XY])_(0|[1-9][0-9]{0,7})\s+([^\s()]+)\s*\)\s*")

Singles = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]


def _plain(value: float) -> str:
    """A float64 as a decimal without exponent, exactly, with a point."""
    text = format(Decimal(value), "f")
    return text if "." in text else f"{text}.0"


def _decimal(value: float, rounding: str) -> str:
    """A float64 as the checker's reader takes it: exactly, in at most 80 digits, else rounded as said."""
    exact = Decimal(value)
    whole, _, part = format(exact, "f").lstrip("-").partition(".")
    if len(whole) <= _PLACES and len(part) <= _PLACES:
        return _plain(value)
    kept = Context(prec=2 * _PLACES, rounding=rounding).create_decimal(exact)
    digits = "".join(map(str, kept.as_tuple().digits)).rjust(2, "0")
    point = max(1, len(digits) - _PLACES)
    exponent = kept.adjusted() + 1 - point
    return f"{'-' if value < 0 else ''}{digits[:point]}.{digits[point:]}e{exponent}"


def _one(goals: Goals, record: int) -> tuple[Floats, Floats, Floats, Floats]:
    """Lower and upper ends [numbers], objectives [clauses, atoms, labels] and least [clauses, atoms] of one record."""
    chosen = np.array([record])
    low, high = (end.reshape(-1) for end in goals.boxes(chosen))
    objectives, least = (values[0] for values in goals.constraint(chosen))
    if np.isnan(least).any() or (least == -np.inf).any():
        raise UnsupportedVersionError(f"record {record}", "VNN-LIB: an atom", "a number to reach", "none")
    return low, high, objectives, least


def _atom(row: Floats, least: float) -> str:
    """That an atom fails, or just holds, in VNN-LIB 1.0.

    Raises:
        UnsupportedVersionError: neither an output and a number nor two outputs.

    """
    places = {int(j): float(row[j]) for j in np.flatnonzero(row)}
    above = [j for j, factor in places.items() if factor == 1]
    below = [j for j, factor in places.items() if factor == -1]
    match len(above), len(below), len(places):
        case 1, 0, 1:
            return f"(<= Y_{above[0]} {_decimal(least, ROUND_CEILING)})"
        case 0, 1, 1:
            return f"(>= Y_{below[0]} {_decimal(-least, ROUND_FLOOR)})"
        case 1, 1, 2 if least == 0:
            return f"(<= Y_{above[0]} Y_{below[0]})"
    expected = "an output and a number, or two outputs"
    raise UnsupportedVersionError("atom", "VNN-LIB 1.0: sides of an inequality", expected, "a sum (see with_margins)")


def _clauses(members: Sequence[Sequence[str]]) -> Iterator[str]:
    """Assertions that in one clause every member holds."""
    if len(members) == 1:
        yield from (f"(assert {member})" for member in members[0])
        return
    yield "(assert (or"
    for listed in dict.fromkeys(tuple(dict.fromkeys(clause)) for clause in members):
        yield f"  (and {' '.join(listed)})"
    yield "))"


def _title(goals: Goals, record: int) -> list[str]:
    network = goals.network.digest()
    return [
        f"; record {record}: sat if some input of the box violates the claim, unsat if the claim holds there",
        f"; about the network with digest {network} (prune-verify), in real arithmetic",
    ]


def property_text(goals: Goals, record: int) -> str:
    """The negation of one record's goals as VNN-LIB 1.0.

    Args:
        goals: what is claimed of one network.
        record: which box.

    Returns:
        The text: inputs X_0, X_1, ..., outputs Y_0, Y_1, ..., in flattened order. ``unsat`` proves the goals.

    Raises:
        UnsupportedVersionError: an atom that compares neither an output with a number nor two outputs.

    """
    low, high, objectives, least = _one(goals, record)
    lines = _title(goals, record)
    if not goals.strict:
        lines.append("; the claim allows equality, which this format cannot exclude: sat at equality refutes nothing")
    lines += [f"(declare-const X_{i} Real)" for i in range(low.size)]
    lines += [f"(declare-const Y_{j} Real)" for j in range(goals.network.labels)]
    for i, (a, b) in enumerate(zip(low.tolist(), high.tolist(), strict=True)):
        lines.append(f"(assert (>= X_{i} {_decimal(a, ROUND_FLOOR)}))")
        lines.append(f"(assert (<= X_{i} {_decimal(b, ROUND_CEILING)}))")
    members = []
    for rows, ends in zip(objectives, least.tolist(), strict=True):
        kept = [_atom(row, end) for row, end in zip(rows, ends, strict=True) if np.isfinite(end)]
        members.append(kept or ["(<= Y_0 Y_0)"])  # atoms that never hold: any input violates the claim
    return "\n".join([*lines, *_clauses(members), ""])


def margin_rows(goals: Goals, record: int) -> Singles:
    """The objectives of one record's atoms, each once: float32 [rows, labels].

    Raises:
        UnsupportedVersionError: a coefficient that is no float32.

    """
    objectives = _one(goals, record)[2].reshape(-1, goals.network.labels)
    rows = np.unique(objectives, axis=0)
    single = rows.astype(np.float32)
    if (single != rows).any():
        raise UnsupportedVersionError(f"record {record}", "VNN-LIB: coefficients of atoms", "float32", "others")
    return single


def with_margins(goals: Goals, record: int) -> Goals:
    """The goals of one record about a longer network, whose outputs are the values of the record's atoms.

    Args:
        goals: what is claimed of one network.
        record: which box.

    Returns:
        Goals that hold if and only if those do over the reals, with record 0 alone; every atom reads one output.

    """
    rows, network = margin_rows(goals, record), goals.network
    low, high, objectives, least = _one(goals, record)
    nodes, source = list(network.nodes), network.output
    if len(network.output_shape) != 1:
        nodes.append(Node("Reshape", (source,), (network.labels,)))
        source = len(nodes) - 1
    nodes.append(Node("Linear", (source,), (len(rows),), {"axis": (-1,)}, {"weight": rows}))
    places = (objectives[:, :, np.newaxis] == rows.astype(np.float64)).all(axis=3).argmax(axis=2)
    shape, values = network.input_shape, np.eye(len(rows))[places]

    def boxes(chosen: Rows) -> Box:
        return np.repeat(low.reshape(1, *shape), len(chosen), 0), np.repeat(high.reshape(1, *shape), len(chosen), 0)

    def constraint(chosen: Rows) -> tuple[Floats, Floats]:
        return np.repeat(values[np.newaxis], len(chosen), 0), np.repeat(least[np.newaxis], len(chosen), 0)

    longer = Network(tuple(nodes), len(nodes) - 1)
    return replace(goals, network=longer, records=1, boxes=boxes, constraint=constraint)


def _element(name: str, place: int, shape: tuple[int, ...]) -> str:
    places = [0, *(int(i[0]) for i in np.unravel_index([place], shape))] if shape else [0]
    return f"{name}[{','.join(map(str, places))}]"


def _declared(name: str, network: Network) -> list[str]:
    ends = (("input", "X", network.input_shape), ("output", "Y", network.output_shape))
    lines = [
        f"  (declare-{end} {letter}_{name} real [{','.join(map(str, (1, *shape)))}])" for end, letter, shape in ends
    ]
    return [f"(declare-network {name}", *lines, ")"]


def _sum(row: Floats, names: list[str]) -> str:
    """A linear form in VNN-LIB 2.0."""
    factors = [(float(row[j]), names[j]) for j in np.flatnonzero(row)]
    above, below = ([name for factor, name in factors if factor == sign] for sign in (1, -1))
    if len(above) == len(below) == 1 and len(factors) == 2:  # noqa: PLR2004 - a difference
        return f"(- {above[0]} {below[0]})"
    parts = [name if f == 1 else f"(- {name})" if f == -1 else f"(* {_plain(f)} {name})" for f, name in factors]
    if not parts:
        return f"(- {names[0]} {names[0]})"
    return parts[0] if len(parts) == 1 else f"(+ {' '.join(parts)})"


def pair_property_text(base: Network, patched: Network, goals: Goals, record: int) -> str:
    """The negation of one record's goals about two networks as VNN-LIB 2.0.

    Args:
        base: the base network.
        patched: the patched network.
        goals: of claim retain_close or retain_label: about the logits of both (those of the base first), or about
            what an additive patch adds to them.
        record: which box.

    Returns:
        The text: networks ``base`` and ``patched``, equal inputs, the negation exactly, over the reals.

    Raises:
        MalformedInputError: networks of other shapes, or goals that are not about both.

    """
    labels = base.labels
    same = (base.input_shape, base.output_shape) == (patched.input_shape, patched.output_shape)
    about_both = goals.network.labels == 2 * labels
    additive = goals.network.labels == labels and goals.network.digest() not in (base.digest(), patched.digest())
    if not same or not (about_both or additive):
        expected = "two networks of one shape, and goals about both or about their difference"
        raise MalformedInputError(f"record {record}", "VNN-LIB 2.0", expected, "others")
    low, high, objectives, least = _one(goals, record)
    rows = objectives if about_both else np.concatenate([-objectives, objectives], axis=2)
    names = [_element(f"Y_{name}", j, base.output_shape) for name in ("base", "patched") for j in range(labels)]
    lines = ["(vnnlib-version <2.0>)", *_title(goals, record)[:1], *_declared("base", base)]
    lines += _declared("patched", patched)
    for place in range(low.size):
        own, other = (_element(f"X_{name}", place, base.input_shape) for name in ("base", "patched"))
        lines.append(f"(assert (== {other} {own}))")
        lines.append(f"(assert (>= {own} {_plain(float(low[place]))}))")
        lines.append(f"(assert (<= {own} {_plain(float(high[place]))}))")
    relation = "<=" if goals.strict else "<"
    members = []
    for listed, ends in zip(rows, least.tolist(), strict=True):
        atoms = [(row, end) for row, end in zip(listed, ends, strict=True) if np.isfinite(end)]
        kept = [f"({relation} {_sum(row, names)} {_plain(end)})" for row, end in atoms]
        members.append(kept or [f"(== {names[0]} {names[0]})"])
    return "\n".join([*lines, *_clauses(members), ""])


def write_counterexample(x: Singles, y: Singles) -> str:
    """An input [n] and the outputs [n] that a run gave for it, in the form of VNN-COMP.

    Args:
        x: float32, flattened in order.
        y: the same.

    Returns:
        ``((X_0 v)``, one line for each number, ``(Y_0 v) ... )``; each v the shortest decimal that float32 reads back.

    Raises:
        MalformedInputError: a number that is not finite.

    """
    lines = []
    for letter, values in (("X", x), ("Y", y)):
        flat = values.astype(np.float32).reshape(-1)
        if not np.isfinite(flat).all():
            raise MalformedInputError(f"counterexample/{letter}", "counterexample", "finite numbers", "others")
        lines += [f"({letter}_{place} {value!s})" for place, value in enumerate(flat)]
    return f"({chr(10).join(lines)})\n"


def _nearest(word: str, path: str) -> np.float32:
    """The float32 nearest to a decimal number, rounded once."""
    value = Fraction(word)
    with np.errstate(all="ignore"):
        near = np.float32(float(word))  # rounded twice: a neighbour may be nearer
        around = [near, np.nextafter(near, np.float32(-np.inf)), np.nextafter(near, np.float32(np.inf))]
    if not np.isfinite(near):
        raise MalformedInputError(path, "counterexample", "a float32", "a larger number")
    finite = [one for one in around if np.isfinite(one)]
    return min(finite, key=lambda one: abs(Fraction(float(one)) - value))


def parse_counterexample(text: str, inputs: int, outputs: int) -> tuple[Singles, Singles]:
    """Read a counterexample of VNN-COMP, with or without the line ``sat`` before it.

    Args:
        text: the file.
        inputs: how many numbers the network reads.
        outputs: how many it gives.

    Returns:
        Inputs and outputs, float32, flattened.

    Raises:
        MalformedInputError: not of the form, a value that is no number, or a variable missing, unknown or given twice.

    """
    body = text.strip().removeprefix("sat").strip()
    if not (body.startswith("(") and body.endswith(")")):
        raise MalformedInputError("counterexample", "form", "((X_0 v) ... (Y_0 v) ...)", ascii(body[:40]))
    found = {"X": dict[int, np.float32](), "Y": dict[int, np.float32]()}
    inner = body[1:-1].strip()
    place = 0
    while place < len(inner):
        match = _VALUE.match(inner, place)
        if match is None:
            raise MalformedInputError("counterexample", "form", "(X_i v) or (Y_j v)", ascii(inner[place : place + 40]))
        letter, index, word = match.group(1), int(match.group(2)), match.group(3)
        path = f"counterexample/{letter}_{index}"
        if index in found[letter] or index >= (inputs if letter == "X" else outputs):
            raise MalformedInputError(path, "variable", "one of the network's, once", "another, or twice")
        if not _NUMBER.fullmatch(word):
            raise MalformedInputError(path, "value", "a decimal number", ascii(word)[:40])
        found[letter][index] = _nearest(word, path)
        place = match.end()
    for letter, count in (("X", inputs), ("Y", outputs)):
        lacking = next((i for i in range(count) if i not in found[letter]), None)
        if lacking is not None:
            raise MalformedInputError(f"counterexample/{letter}_{lacking}", "variable", "a value", "none")
    x, y = (np.array([found[k][i] for i in range(n)], dtype=np.float32) for k, n in (("X", inputs), ("Y", outputs)))
    return x, y
