"""Forged ``patch.json``: gates that hold margins, hidden sites and shifts, changed after the network was made.

Each row is one change of an honest file. What has not the form is refused at its place; what has it gives another network
than the one that is deployed; where the network is made to fit, the claims say no more than is true.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prune_verify.checker.claim import Claim, LabelledRows, Problem, decide
from prune_verify.checker.encoding import canonical_json, format_binary32
from prune_verify.checker.errors import (
    CheckError,
    MalformedInputError,
    ProofError,
    SubjectMismatchError,
    UnsupportedVersionError,
)
from prune_verify.checker.network import evaluate, evaluate_all
from prune_verify.checker.patch import Gate, Interval, JointPatch, Patch, ShiftPatch
from prune_verify.checker.patch_json import PatchFile, disclosed, emit_patch, parse_patch, require_disclosed
from prune_verify.checker.rebuild import build, coordinates_of, site_nodes
from prune_verify.checker.region import Domain
from prune_verify.checker.rules import BINARY32, REAL
from prune_verify.checker.shift_minimality import decide_shift_minimality, emit_points
from tests.checker.random_networks import mlp

F32 = np.float32
BASE = mlp(2, 4, 8, 6, 3)
DIGEST = BASE.digest()
DOMAIN = Domain((Fraction(0),), (Fraction(1),))
RADIUS, BAND = Fraction(1, 64), (Fraction(-2), Fraction(2))
_rng = np.random.default_rng(1)
X = np.array([[0.25, 0.75, 0.5, 0.5], [0.75, 0.25, 0.5, 0.5]], F32)
Y = evaluate(BASE, X).argmax(axis=1).astype(np.int64)
FORGET = LabelledRows(X, Y)
RETAIN = LabelledRows(np.array([[0.5, 0.5, 0.1, 0.9], [0.1, 0.1, 0.9, 0.5]], F32), np.zeros(2, np.int64))
LARGE = 2.0**12


def _box(record: int) -> tuple[Interval, ...]:
    return tuple(Interval(j, F32(X[record, j] - 1 / 32), F32(X[record, j] + 1 / 32)) for j in (0, 1))


HELD = JointPatch(3, (), F32(0), F32(0), F32(LARGE), tuple(Gate(int(Y[i]), F32(64), _box(i), (i,), (F32(-1), F32(1))) for i in (0, 1)))  # fmt: skip


def _hidden() -> JointPatch:
    """A gate on the first ReLU for each record, around what it shows there, and wide enough for a small ball."""
    shown = evaluate_all(BASE, X)[site_nodes(BASE, ("relu-0",))[0]]
    gates = tuple(
        Gate(int(Y[i]), F32(2**10), tuple(Interval(j, None, F32(shown[i, j] + 1 / 16)) for j in range(8)), (i,))
        for i in (0, 1)
    )
    return JointPatch(3, (), F32(1), F32(2**10), F32(LARGE), gates, ("relu-0",))


HIDDEN = _hidden()
SHIFT = ShiftPatch(3, tuple(Gate(int(Y[i]), F32(2**10), HIDDEN.gates[i].intervals, (i,)) for i in (0, 1)), ("relu-0",), np.zeros((2, 3), F32) + F32(2.0**-20))  # fmt: skip
HONEST: dict[str, Patch] = {"held": HELD, "hidden": HIDDEN, "shift": SHIFT}
CLAIMS = {
    "held": Claim("band", BINARY32, "structural", radius=RADIUS, band=BAND),
    "hidden": Claim("forget", BINARY32, "structural", radius=Fraction(1, 1024), margin=Fraction(1, 2)),
    "shift": Claim("minimality", REAL, "shift-point", radius=RADIUS, margin=Fraction(1, 2)),
}
Edit = Callable[[dict], None]


def document(name: str) -> dict:
    return json.loads(emit_patch(PatchFile(HONEST[name], DIGEST), coordinates_of(BASE, HONEST[name])))


def judged(name: str, data: bytes, *, deployed: Patch | None = None) -> int:
    """How many records or gates are proved, reading the file as ``verify`` does; the honest network is deployed."""
    patch = parse_patch(data, "p").patch
    require_disclosed(data, "p", patch, coordinates_of(BASE, patch))
    problem = Problem(BASE, build(BASE, deployed or HONEST[name]), patch, DOMAIN, FORGET, RETAIN)
    if name == "shift":
        return decide_shift_minimality(problem, CLAIMS[name], emit_points(X), "points").proved
    return decide(problem, CLAIMS[name]).proved


@pytest.mark.parametrize("name", list(HONEST))
def test_the_honest_file_is_proved_and_survives(name: str) -> None:
    data = canonical_json(document(name))
    assert judged(name, data) == 2
    assert emit_patch(parse_patch(data, "p"), coordinates_of(BASE, HONEST[name])) == data


def put(path: str, value: object) -> Edit:
    """Another value at a place; Ellipsis removes it."""

    def apply(found: dict) -> None:
        *parents, last = path.split("/")
        for name in parents:
            found = found[int(name) if isinstance(found, list) else name]
        key = int(last) if isinstance(found, list) else last
        if value is ...:
            del found[key]
        else:
            found[key] = value

    return apply


def hexed(value: float) -> str:
    return format_binary32(F32(value))


def floats(*values: float, dtype: str = "<f4") -> str:
    return base64.b64encode(np.array(values, dtype=dtype).tobytes()).decode()


def both(*edits: Edit) -> Edit:
    return lambda found: [edit(found) for edit in edits] and None


MALFORMED, VERSION, SUBJECT = MalformedInputError, UnsupportedVersionError, SubjectMismatchError
SIX = (0.5,) * 6
ROWS = [
    # gates that hold
    ("held", "hold ends swapped", put("gates/0/hold", [hexed(1), hexed(-1)]), SUBJECT, "patched.onnx"),
    ("held", "hold of one number", put("gates/0/hold", [hexed(1)]), MALFORMED, "p/gates/0/hold"),
    ("held", "hold of three numbers", put("gates/0/hold", [hexed(1)] * 3), MALFORMED, "p/gates/0/hold"),
    ("held", "hold of nothing", put("gates/0/hold", []), MALFORMED, "p/gates/0/hold"),
    ("held", "hold null", put("gates/0/hold", None), MALFORMED, "p/gates/0/hold"),
    ("held", "a NaN end", put("gates/0/hold/0", "7fc00000"), MALFORMED, "p/gates/0/hold"),
    ("held", "an infinite end", put("gates/1/hold/1", "7f800000"), MALFORMED, "p/gates/1/hold"),
    ("held", "an end in decimals", put("gates/1/hold/1", "1.0"), MALFORMED, "p/gates/1/hold"),
    ("held", "an end as a number", put("gates/1/hold/1", 1), MALFORMED, "p/gates/1/hold"),
    ("held", "one gate without hold", put("gates/1/hold", ...), MALFORMED, "p/gates"),
    ("held", "tau beside gates that hold", put("tau", hexed(1)), MALFORMED, "p/gates"),
    ("held", "shift beside gates that hold", put("shift", hexed(1)), MALFORMED, "p/gates"),
    ("held", "a class beside gates that hold", both(put("forgottenClasses", [2]), put("gates/0/label", 0), put("gates/1/label", 1)), MALFORMED, "p/gates"),
    ("held", "a wider band", put("gates/0/hold", [hexed(-9), hexed(9)]), SUBJECT, "patched.onnx"),
    ("held", "another slope of one gate", put("gates/0/gamma", hexed(128)), SUBJECT, "patched.onnx"),
    ("held", "less slack", put("slack", hexed(1)), SUBJECT, "patched.onnx"),
    ("held", "negative slack", put("slack", hexed(-1)), SUBJECT, "patched.onnx"),
    ("held", "gates in another order", lambda found: found["gates"].reverse(), SUBJECT, "patched.onnx"),
    ("held", "understated disclosure", put("disclosed/bits", document("held")["disclosed"]["bits"] - 64), MALFORMED, "p/disclosed"),
    ("held", "no disclosure", put("disclosed", ...), MALFORMED, "p"),
    ("hidden", "hold where the label is taken away", put("gates/0/hold", [hexed(-1), hexed(1)]), MALFORMED, "p/gates"),
    ("hidden", "hold in every gate, tau as before", both(put("gates/0/hold", [hexed(-1), hexed(1)]), put("gates/1/hold", [hexed(-1), hexed(1)])), MALFORMED, "p/gates"),
    # sites
    ("hidden", "no site", put("site", []), MALFORMED, "p/site"),
    ("hidden", "the site as a text", put("site", "relu-0"), MALFORMED, "p/site"),
    ("hidden", "the input as a list", put("site", ["input"]), MALFORMED, "p/site"),
    ("hidden", "a number", put("site", [0]), MALFORMED, "p/site"),
    ("hidden", "null", put("site", None), MALFORMED, "p/site"),
    ("hidden", "a site twice", put("site", ["relu-0", "relu-0"]), MALFORMED, "patch.json/site"),
    ("hidden", "a ReLU that the base does not have", put("site", ["relu-2"]), MALFORMED, "patch.json/site"),
    ("hidden", "a pre-activation", put("site", ["gemm-0"]), MALFORMED, "patch.json/site"),
    ("hidden", "the logits", put("site", ["output"]), MALFORMED, "patch.json/site"),
    ("hidden", "another spelling", put("site", ["relu-00"]), MALFORMED, "patch.json/site"),
    ("hidden", "a later layer, which has fewer", put("site", ["relu-1"]), MALFORMED, "patch.json/gates"),
    ("hidden", "the input, where fewer coordinates are", both(put("site", "input"), put("disclosed/bits", 16 * 32 + 16 * 2)), MALFORMED, "patch.json/gates"),
    ("hidden", "one site more", put("site", ["relu-0", "relu-1"]), MALFORMED, "p/disclosed"),
    ("hidden", "one site more, and what that discloses", both(put("site", ["relu-0", "relu-1"]), put("disclosed/bits", 16 * 32 + 16 * 4)), SUBJECT, "patched.onnx"),
    ("hidden", "the order of sites", both(put("site", ["relu-1", "relu-0"]), put("disclosed/bits", 16 * 32 + 16 * 4)), SUBJECT, "patched.onnx"),
    ("hidden", "a coordinate beyond the site", put("gates/0/intervals/7/0", 8), MALFORMED, "patch.json/gates"),
    ("hidden", "a negative coordinate", put("gates/0/intervals/0/0", -1), MALFORMED, "p/gates/0/intervals/0"),
    ("hidden", "coordinates that descend", lambda found: found["gates"][0]["intervals"].reverse(), MALFORMED, "p/gates/0/intervals"),
    ("hidden", "another edge", put("gates/0/intervals/0/2", hexed(1024)), SUBJECT, "patched.onnx"),
    # shifts
    ("shift", "a row too few", put("shifts", floats(0.5, 0.5, 0.5)), MALFORMED, "p/shifts"),
    ("shift", "a row too many", put("shifts", floats(*SIX, 0.5, 0.5, 0.5)), MALFORMED, "p/shifts"),
    ("shift", "a number too many", put("shifts", floats(*SIX, 0.5)), MALFORMED, "p/shifts"),
    ("shift", "nothing", put("shifts", ""), MALFORMED, "p/shifts"),
    ("shift", "NaN", put("shifts", floats(*SIX[1:], np.nan)), MALFORMED, "p/shifts"),
    ("shift", "infinity", put("shifts", floats(np.inf, *SIX[1:])), MALFORMED, "p/shifts"),
    ("shift", "float64", put("shifts", floats(*SIX, dtype="<f8")), MALFORMED, "p/shifts"),
    ("shift", "float16", put("shifts", floats(*SIX, dtype="<f2")), MALFORMED, "p/shifts"),
    ("shift", "float64 of half as many, so that the bytes fit", put("shifts", floats(0.5, 0.5, 0.5, dtype="<f8")), SUBJECT, "patched.onnx"),
    ("shift", "big-endian", put("shifts", floats(*[2.0**-20] * 6, dtype=">f4")), SUBJECT, "patched.onnx"),
    ("shift", "loose base64", put("shifts", floats(*SIX) + "="), MALFORMED, "p/shifts"),
    ("shift", "a list of numbers", put("shifts", [0] * 6), MALFORMED, "p/shifts"),
    ("shift", "smaller shifts than are deployed", put("shifts", floats(*[0.0] * 6)), SUBJECT, "patched.onnx"),
    ("shift", "no gates", both(put("gates", []), put("shifts", ""), put("disclosed", {"bits": 0, "coordinates": 0})), MALFORMED, "p/gates"),
    ("shift", "gates that hold", put("gates/0/hold", [hexed(-1), hexed(1)]), MALFORMED, "p/gates"),
    ("shift", "a head's constant", put("tau", hexed(1)), MALFORMED, "p"),
    ("shift", "conflicts, which bounds decide", put("conflicts", []), MALFORMED, "p"),
    ("shift", "a label that does not exist", put("gates/0/label", 3), MALFORMED, "p/gates/0/label"),
    ("shift", "a subnormal slope", put("gates/0/gamma", "00000001"), MALFORMED, "p/gates/0/gamma"),
    ("shift", "understated disclosure", put("disclosed/bits", document("shift")["disclosed"]["bits"] - 32 * 6), MALFORMED, "p/disclosed"),
    ("shift", "another family", put("family", "learned"), MALFORMED, "p"),
    ("shift", "family box", put("family", "box"), MALFORMED, "p"),
    ("shift", "a family by another name", put("family", "linear_region"), VERSION, "p/family"),
    ("held", "family linear-region", put("family", "linear-region"), MALFORMED, "p"),
    ("held", "family class-cap", put("family", "class-cap"), MALFORMED, "p/family"),
    ("shift", "labels of another base", put("labels", 4), MALFORMED, "p/shifts"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "sentence", "edit", "error", "path"), ROWS, ids=[f"{r[0]}: {r[1]}" for r in ROWS])
def test_a_forged_file_is_refused(name: str, sentence: str, edit: Edit, error: type[CheckError], path: str) -> None:
    found = document(name)
    edit(found)
    with pytest.raises(error) as refused:
        judged(name, canonical_json(found))
    assert refused.value.path == path, sentence
    assert all((refused.value.rule, refused.value.expected, refused.value.got)), sentence


# --- the network is made to fit the forged file ---

FITTING = [
    ("held", "hold ends swapped", put("gates/0/hold", [hexed(1), hexed(-1)]), "patch.json/gates/0/hold"),
    ("held", "a slack of 0", put("slack", hexed(0)), "patch.json/slack"),
    ("held", "a negative slack", put("slack", hexed(-LARGE)), "patch.json/slack"),
    ("held", "ends that ask for more slack", put("gates/0/hold", [hexed(-LARGE), hexed(1)]), "patch.json/slack"),
    ("held", "a wider band than claimed", put("gates/0/hold", [hexed(-9), hexed(9)]), (0,)),
    ("held", "a gate for the other record", put("gates/0/records", [1]), (0,)),
    ("held", "a slope so flat that both gates open", put("gates/0/gamma", hexed(0.5)), (1,)),
    ("held", "a box beside the record", put("gates/0/intervals/0", [0, hexed(0.5), hexed(1)]), (0,)),
    ("hidden", "a box beside the image", put("gates/0/intervals/3/2", hexed(0)), None),
    ("hidden", "a slope so flat that nothing is outside", put("gates/0/gamma", hexed(2.0**-100)), "patch.json/gates/0"),
    ("hidden", "a slack of 0", put("slack", hexed(0)), "patch.json/slack"),
    ("shift", "shifts that are larger than any need", put("shifts", floats(*[4096.0] * 6)), (0, 1)),
    ("shift", "one label's shift larger", put("shifts", floats(0, 0, 4096, 0, 0, 0)), (0,)),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "sentence", "edit", "expected"), FITTING, ids=[f"{row[0]}: {row[1]}" for row in FITTING]
)
def test_a_network_that_fits_the_forged_file_proves_no_more(
    name: str, sentence: str, edit: Edit, expected: str | tuple[int, ...] | None
) -> None:
    found = document(name)
    edit(found)
    patch = parse_patch(canonical_json(found), "p").patch
    coordinates, bits = disclosed(patch, coordinates_of(BASE, patch))
    found["disclosed"] = {"bits": bits, "coordinates": coordinates}
    data = canonical_json(found)
    if isinstance(expected, str):
        with pytest.raises(ProofError) as refused:
            judged(name, data, deployed=patch)
        assert refused.value.path == expected, sentence
        return
    assert judged(name, data, deployed=patch) == 2 - len(expected or (0,)), sentence


# --- any change at all ---


def _leaves(value: object, path: tuple = ()) -> list[tuple]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(leaf for key, part in items for leaf in _leaves(part, (*path, key)))]


VALUES = [None, True, 0, 1, 7, -1, 2**53, "", "input", "relu-1", "00000000", "7fc00000", "ff800000", "bf800000", "3f800000", [], {}, ["input"], ["relu-1"]]  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(list(HONEST)), st.integers(0, 2**16), st.integers(0, 2**16))
def test_one_changed_value_is_refused_or_changes_no_claim(name: str, place: int, choice: int) -> None:
    """Whatever stands somewhere else: a refusal, or a file whose network is the deployed one bit for bit."""
    found = document(name)
    places = _leaves(found)[1:]
    *parents, last = places[place % len(places)]
    target = found
    for key in parents:
        target = target[key]
    before = deepcopy(target[last])
    target[last] = VALUES[choice % len(VALUES)]
    try:
        proved = judged(name, canonical_json(found))
    except CheckError:
        return
    patch = parse_patch(canonical_json(found), "p").patch
    assert build(BASE, patch).digest() == build(BASE, HONEST[name]).digest(), (places[place % len(places)], before)
    assert proved <= 2


@pytest.mark.parametrize("name", list(HONEST))
def test_the_deployed_network_is_not_the_one_of_another_form(name: str) -> None:
    """No two of the three honest files stand for one network."""
    for other, patch in HONEST.items():
        if other != name:
            with pytest.raises(SubjectMismatchError):
                judged(name, canonical_json(document(name)), deployed=patch)


def test_slopes_may_differ_between_gates_that_hold() -> None:
    """Each gate has its own slope: the support of each is computed from it, and nothing is shared."""
    gates = (replace(HELD.gates[0], gamma=F32(32)), replace(HELD.gates[1], gamma=F32(256)))
    patch = replace(HELD, gates=gates)
    data = emit_patch(PatchFile(patch, DIGEST), coordinates_of(BASE, patch))
    assert judged("held", data, deployed=patch) == 2
    with pytest.raises(SubjectMismatchError):
        judged("held", data)
