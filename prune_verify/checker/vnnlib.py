"""Reader of VNN-LIB 1.0 properties: boxes of inputs and linear inequalities of outputs, as goals.

A property asks whether some input of a box gives outputs that meet all its assertions (``sat``). The subset read is
that of VNN-COMP: ``declare-const X_i`` and ``Y_i``, assertions with ``<=``, ``>=``, ``and`` and ``or`` over variables
and decimals. It is brought into the form: one of several *cases*, each a box and a list of inequalities that
all hold. ``unsat`` is proved if in every case, for every input of the box, one of the inequalities fails.

Source: VNN-LIB 1.0; FORMATS (check-proof).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from math import prod

import numpy as np
import numpy.typing as npt

from prune_verify.checker.errors import LimitError, MalformedInputError
from prune_verify.checker.goals import Goals
from prune_verify.checker.interval import Box, Floats
from prune_verify.checker.network import Network
from prune_verify.checker.region import float64_not_above, float64_not_below

__all__ = ["Case", "goals_of_property", "parse_property"]

MAX_BYTES = 2**26
_MAX_CASES = 4096
_MAX_DEPTH = 16
_TOKEN = re.compile(r"\s+|;[^\n]*|([()])|([^\s();]+)")
_NUMBER = re.compile(r"-?[0-9]{1,40}(\.[0-9]{1,40})?([eE][-+]?[0-9]{1,3})?")
_VARIABLE = re.compile(r"([XY])_(0|[1-9][0-9]{0,7})")

Tree = str | list["Tree"]
Atom = tuple[dict[int, int], Fraction]  # sum of coefficient * Y <= number


@dataclass(frozen=True)
class _Literal:
    """One inequality: a bound of an input, or an atom over the outputs."""

    variable: int = -1
    at_most: bool = True
    value: Fraction = Fraction(0)
    atom: Atom | None = None


@dataclass(frozen=True)
class Case:
    """Inputs of a box whose outputs meet all atoms.

    Args:
        lower: of every input, exact.
        upper: the same.
        atoms: sum of coefficient * Y <= number; at least one.

    """

    lower: tuple[Fraction, ...]
    upper: tuple[Fraction, ...]
    atoms: tuple[Atom, ...]


def _tokens(text: str) -> Iterator[tuple[str, int]]:
    """Parentheses and words with their places; whatever lies between is space or a comment."""
    for found in _TOKEN.finditer(text):
        if found.group(1) or found.group(2):
            yield found.group(), found.start()


def _trees(text: str, path: str) -> Iterator[tuple[list[Tree], str]]:
    """The top-level expressions, each with its place in the file."""
    stack: list[list[Tree]] = []
    start = 0
    for word, place in _tokens(text):
        if word == "(":
            if len(stack) > _MAX_DEPTH:
                raise LimitError(_line(text, place, path), "depth of an expression", f"at most {_MAX_DEPTH}", "more")
            start = start if stack else place
            stack.append([])
        elif not stack:
            raise MalformedInputError(_line(text, place, path), "VNN-LIB", "an expression", ascii(word)[:40])
        elif word == ")":
            done = stack.pop()
            if stack:
                stack[-1].append(done)
            else:
                yield done, _line(text, start, path)
        else:
            stack[-1].append(word)
    if stack:
        raise MalformedInputError(_line(text, start, path), "VNN-LIB", "a closing parenthesis", "the end")


def _line(text: str, place: int, path: str) -> str:
    return f"{path}/line {text.count(chr(10), 0, place) + 1}"


def _literal(tree: Tree, path: str) -> _Literal:
    """An inequality between variables and numbers."""
    if not isinstance(tree, list) or len(tree) != 3 or tree[0] not in ("<=", ">="):  # noqa: PLR2004 - operator and sides
        raise MalformedInputError(path, "VNN-LIB", "(<= A B) or (>= A B)", ascii(str(tree))[:60])
    first, second = (_side(side, path) for side in tree[1:])
    small, large = (first, second) if tree[0] == "<=" else (second, first)
    names = {name[0] for name in (small, large) if isinstance(name, tuple)}
    if names == {"X"} and not (isinstance(small, tuple) and isinstance(large, tuple)):
        if isinstance(small, Fraction):
            return _Literal(large[1] if isinstance(large, tuple) else 0, at_most=False, value=small)
        return _Literal(small[1], at_most=True, value=large if isinstance(large, Fraction) else Fraction(0))
    if names != {"Y"}:
        raise MalformedInputError(path, "VNN-LIB", "an input and a number, or outputs", ascii(str(tree))[:60])
    factors, number = dict[int, int](), Fraction(0)
    for side, sign in ((small, 1), (large, -1)):
        if isinstance(side, Fraction):
            number -= sign * side
        else:
            factors[side[1]] = factors.get(side[1], 0) + sign
    return _Literal(atom=(factors, number))


def _side(tree: Tree, path: str) -> tuple[str, int] | Fraction:
    if isinstance(tree, str):
        variable = _VARIABLE.fullmatch(tree)
        if variable:
            return variable.group(1), int(variable.group(2))
        if _NUMBER.fullmatch(tree):
            return Fraction(tree)
    raise MalformedInputError(path, "VNN-LIB", "a variable or a decimal number", ascii(str(tree))[:60])


def _cases(tree: Tree, path: str) -> list[list[_Literal]]:
    """The disjunctive form of one assertion."""
    head = tree[0] if isinstance(tree, list) and tree else None
    if head == "or":
        found = [case for part in tree[1:] for case in _cases(part, path)]
    elif head == "and":
        found = [[]]
        for part in tree[1:]:
            found = _product(found, _cases(part, path), path)
    else:
        found = [[_literal(tree, path)]]
    return found


def _product(first: list[list[_Literal]], second: list[list[_Literal]], path: str) -> list[list[_Literal]]:
    if len(first) * len(second) > _MAX_CASES:
        raise LimitError(path, "cases of a property", f"at most {_MAX_CASES}", str(len(first) * len(second)))
    return [[*one, *other] for one in first for other in second]


def parse_property(data: bytes, path: str, inputs: int, outputs: int) -> list[Case]:
    """Read a property of a network.

    Args:
        data: the file.
        path: its name, for errors.
        inputs: how many numbers the network reads.
        outputs: how many it gives.

    Returns:
        The cases; the property is ``sat`` if one of them is.

    Raises:
        MalformedInputError: not of the subset, variables that the network does not have, or an input without bounds.
        LimitError: too long, too deep or too many cases.

    """
    if len(data) > MAX_BYTES:
        raise LimitError(path, "size of a property", f"at most {MAX_BYTES} bytes", str(len(data)))
    try:
        text = data.decode("ascii")
    except UnicodeDecodeError as error:
        raise MalformedInputError(path, "VNN-LIB", "ASCII", f"byte {error.start}") from None
    declared, found = set[str](), [list[_Literal]()]
    for tree, place in _trees(text, path):
        if len(tree) == 3 and tree[0] == "declare-const" and tree[2] == "Real":  # noqa: PLR2004
            name = tree[1]
            if not isinstance(name, str) or not _VARIABLE.fullmatch(name) or name in declared:
                raise MalformedInputError(place, "declaration", "a new X_i or Y_i", ascii(str(name))[:40])
            declared.add(name)
        elif len(tree) == 2 and tree[0] == "assert":  # noqa: PLR2004
            found = _product(found, _cases(tree[1], place), place)
        else:
            raise MalformedInputError(place, "VNN-LIB", "declare-const or assert", ascii(str(tree))[:60])
    expected = {f"X_{i}" for i in range(inputs)} | {f"Y_{i}" for i in range(outputs)}
    if declared != expected:
        other = min(declared ^ expected)
        raise MalformedInputError(path, "variables", f"X_0 to X_{inputs - 1} and Y_0 to Y_{outputs - 1}", other)
    return [_case(literals, path, inputs, outputs) for literals in found]


def _case(literals: list[_Literal], path: str, inputs: int, outputs: int) -> Case:
    lower, upper = dict[int, Fraction](), dict[int, Fraction]()
    atoms = list[Atom]()
    for item in literals:
        if item.atom is not None:
            atoms.append(item.atom)
        elif item.at_most:
            upper[item.variable] = min(item.value, upper.get(item.variable, item.value))
        else:
            lower[item.variable] = max(item.value, lower.get(item.variable, item.value))
    for number, ends in (("lower", lower), ("upper", upper)):
        lacking = next((i for i in range(inputs) if i not in ends), None)
        if lacking is not None or max(ends) >= inputs:
            raise MalformedInputError(path, f"{number} bounds", "one for every input", f"none for X_{lacking}")
    if not atoms or any(j >= outputs for factors, _ in atoms for j in factors):
        raise MalformedInputError(path, "outputs", "an inequality over the network's outputs", "none")
    ordered = range(inputs)
    return Case(tuple(lower[i] for i in ordered), tuple(upper[i] for i in ordered), tuple(atoms))


def goals_of_property(network: Network, cases: list[Case], arithmetic: str) -> Goals:
    """The goals that prove ``unsat``: a record per box, a clause per case, an atom per inequality; others are refused.

    An inequality ``c . y <= b`` fails where ``c . y > b``. Where there are fewer clauses or atoms than elsewhere, the
    first is repeated. A box that is empty has no input; it stays, with equal ends, and has to be proved all the same.
    """
    size = prod(network.input_shape)
    if any(len(case.lower) != size for case in cases):
        raise MalformedInputError("property", "inputs", str(size), "another number")
    boxes: dict[tuple[tuple[Fraction, ...], tuple[Fraction, ...]], list[Case]] = {}
    for case in cases:
        boxes.setdefault((case.lower, case.upper), []).append(case)
    groups = list(boxes.values())
    clauses, atoms = max(len(group) for group in groups), max(len(case.atoms) for case in cases)
    objectives = np.zeros((len(groups), clauses, atoms, network.labels))
    least = np.zeros((len(groups), clauses, atoms))
    for record, group in enumerate(groups):
        for clause in range(clauses):
            listed = group[clause if clause < len(group) else 0].atoms
            for place in range(atoms):
                factors, number = listed[place if place < len(listed) else 0]
                least[record, clause, place] = float64_not_below(number)
                for output, factor in factors.items():
                    objectives[record, clause, place, output] += factor
    lower = np.array([[float64_not_above(v) for v in group[0].lower] for group in groups])
    upper = np.array([[float64_not_below(v) for v in group[0].upper] for group in groups])
    shape = (len(groups), *network.input_shape)
    low, high = lower.reshape(shape), np.maximum(lower, upper).reshape(shape)

    def region(records: npt.NDArray[np.int64]) -> Box:
        return low[records], high[records]

    def constraint(records: npt.NDArray[np.int64]) -> tuple[Floats, Floats]:
        return objectives[records], least[records]

    return Goals(network, arithmetic, len(groups), clauses, atoms, region, constraint, strict=True)
