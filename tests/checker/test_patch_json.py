"""``patch.json``: parse . emit is the identity, and every side condition of the form has a row."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prune_verify.checker.encoding import canonical_json
from prune_verify.checker.errors import CheckError, LimitError, MalformedInputError, UnsupportedVersionError
from prune_verify.checker.patch import Gate, Interval, JointPatch, LearnedPatch
from prune_verify.checker.patch_json import PatchFile, disclosed, emit_patch, parse_patch, require_disclosed

SIZE = 20
BASE = "ab" * 32
F = np.float32


def joint(*, classes: tuple[int, ...] = (2,)) -> JointPatch:
    gate = Gate(1, F(50), (Interval(3, F(0.25), None), Interval(7, F(0.1), F(0.5))), (0, 4))
    return JointPatch(4, classes, F(0.5), F(100), F(300), (gate,))


def learned() -> LearnedPatch:
    rng = np.random.default_rng(0)
    layers = [(rng.standard_normal(s).astype(F), rng.standard_normal(s[0]).astype(F)) for s in ((3, 5), (4, 3))]
    return LearnedPatch(4, tuple(layers))


def test_parse_of_emit_is_the_identity() -> None:
    for patch in (joint(), joint(classes=()), JointPatch(4, (0, 3), F(1), F(0), F(0), ())):
        data = emit_patch(PatchFile(patch, BASE, (5, 9)), SIZE)
        found = parse_patch(data, "patch.json")
        assert (found.patch, found.base_network, found.conflicts) == (patch, BASE, (5, 9))
        assert emit_patch(found, SIZE) == data
        require_disclosed(data, "patch.json", patch, SIZE)


def test_a_learned_patch_survives_too() -> None:
    data = emit_patch(PatchFile(learned(), BASE), 5)
    found = parse_patch(data, "patch.json").patch
    assert isinstance(found, LearnedPatch)
    for (weight, bias), (other_weight, other_bias) in zip(learned().layers, found.layers, strict=True):
        assert np.array_equal(weight, other_weight)
        assert np.array_equal(bias, other_bias)
    assert emit_patch(PatchFile(found, BASE), 5) == data


def test_what_a_patch_discloses_is_counted() -> None:
    assert disclosed(joint(), SIZE) == (2, 32 * 3 + 2 * 5)
    assert disclosed(JointPatch(4, (0,), F(1), F(0), F(0), ()), SIZE) == (0, 0)
    assert disclosed(learned(), 5) == (0, 32 * (15 + 3 + 12 + 4))


def change(path: str, value: object) -> Callable[[dict], None]:
    def apply(document: dict) -> None:
        *parents, last = path.split("/")
        for name in parents:
            document = document[int(name) if isinstance(document, list) else name]
        document[int(last) if isinstance(document, list) else last] = value

    return apply


ROWS = [
    ("another version", change("formatVersion", 2), UnsupportedVersionError, "p/formatVersion"),
    ("another family", change("family", "sponge"), UnsupportedVersionError, "p/family"),
    ("class-cap with gates", change("family", "class-cap"), MalformedInputError, "p/family"),
    ("another site", change("site", "logits"), MalformedInputError, "p/site"),
    ("a gate of a forgotten class", change("gates/0/label", 2), MalformedInputError, "p/gates/0/label"),
    ("a label that does not exist", change("gates/0/label", 4), MalformedInputError, "p/gates/0/label"),
    ("every class forgotten", change("forgottenClasses", [0, 1, 2, 3]), MalformedInputError, "p/gates/0/label"),
    ("classes twice", change("forgottenClasses", [2, 2]), MalformedInputError, "p/forgottenClasses"),
    ("a gamma of zero", change("gates/0/gamma", "00000000"), MalformedInputError, "p/gates/0/gamma"),
    ("a negative gamma", change("gates/0/gamma", "bf800000"), MalformedInputError, "p/gates/0/gamma"),
    ("an infinite gamma", change("gates/0/gamma", "7f800000"), MalformedInputError, "p/gates/0/gamma"),
    ("a NaN edge", change("gates/0/intervals/0/1", "7fc00000"), MalformedInputError, "p/gates/0/intervals/0"),
    ("a gate without intervals", change("gates/0/intervals", []), MalformedInputError, "p/gates/0/intervals"),
    ("an interval without edges", change("gates/0/intervals/0/1", None), MalformedInputError, "p/gates/0/intervals/0"),
    ("an empty interval", change("gates/0/intervals/1/1", "3f800000"), MalformedInputError, "p/gates/0/intervals/1"),
    ("a coordinate twice", change("gates/0/intervals/1/0", 3), MalformedInputError, "p/gates/0/intervals"),
    ("a boolean coordinate", change("gates/0/intervals/0/0", True), MalformedInputError, "p/gates/0/intervals/0"),
    ("a tau of zero", change("tau", "00000000"), MalformedInputError, "p/tau"),
    ("a negative slack", change("slack", "bf800000"), MalformedInputError, "p/tau"),
    ("upper-case digits", change("tau", "3F800000"), MalformedInputError, "p/tau"),
    ("a class in words", change("forgottenClasses", ["two"]), MalformedInputError, "p/forgottenClasses"),
    ("a Boolean class", change("forgottenClasses", [True]), MalformedInputError, "p/forgottenClasses"),
    ("a member too many", change("note", "hello"), MalformedInputError, "p"),
    ("a short digest", change("baseNetwork", "ab"), MalformedInputError, "p/baseNetwork"),
]


@pytest.mark.parametrize(("sentence", "edit", "error", "path"), ROWS, ids=[row[0] for row in ROWS])
def test_refusals(sentence: str, edit: Callable[[dict], None], error: type[CheckError], path: str) -> None:
    document = json.loads(emit_patch(PatchFile(joint(), BASE), SIZE))
    edit(document)
    with pytest.raises(error) as caught:
        parse_patch(canonical_json(document), "p")
    assert caught.value.path == path


@pytest.mark.parametrize("name", ["shift", "slack"])
def test_a_head_without_gates_has_no_constants(name: str) -> None:
    document = json.loads(emit_patch(PatchFile(JointPatch(4, (0, 3), F(1), F(0), F(0), ()), BASE), SIZE))
    document[name] = "3f800000"
    with pytest.raises(MalformedInputError) as caught:
        parse_patch(canonical_json(document), "p")
    assert caught.value.path == "p/shift"


LEARNED_ROWS = [
    ("a shape of one number", change("layers/0/shape", [3]), MalformedInputError, "p/layers/0/shape"),
    ("a Boolean width", change("layers/0/shape", [True, 15]), MalformedInputError, "p/layers/0/shape"),
    ("a width of zero", change("layers/0/shape", [0, 5]), MalformedInputError, "p/layers/0/shape"),
    ("no layers", change("layers", []), MalformedInputError, "p/layers"),
    ("weights of another size", change("layers/0/shape", [3, 6]), MalformedInputError, "p/layers/0/weight"),
    ("a layer too large", change("layers/0/shape", [2**20, 2**20]), LimitError, "p/layers/0/shape"),
    ("NaN weights", change("layers/0/bias", "AADAfwAAwH8AAMB/"), MalformedInputError, "p/layers/0/bias"),
    ("loose base64", change("layers/0/bias", "AAAAAAAAAAAAAAAB="), MalformedInputError, "p/layers/0/bias"),
]


@pytest.mark.parametrize(("sentence", "edit", "error", "path"), LEARNED_ROWS, ids=[row[0] for row in LEARNED_ROWS])
def test_refusals_of_learned_patches(sentence: str, edit: Callable[[dict], None], error: type, path: str) -> None:
    document = json.loads(emit_patch(PatchFile(learned(), BASE), 5))
    edit(document)
    with pytest.raises(error) as caught:
        parse_patch(canonical_json(document), "p")
    assert caught.value.path == path


def test_understated_disclosure_is_refused() -> None:
    document = json.loads(emit_patch(PatchFile(joint(), BASE), SIZE))
    document["disclosed"]["bits"] -= 1
    with pytest.raises(MalformedInputError) as caught:
        require_disclosed(canonical_json(document), "p", joint(), SIZE)
    assert caught.value.path == "p/disclosed"


def test_another_spelling_is_refused() -> None:
    data = emit_patch(PatchFile(joint(), BASE), SIZE)
    with pytest.raises(MalformedInputError):
        parse_patch(data.replace(b",", b", ", 1), "p")


@settings(max_examples=200)
@given(st.integers(0, 2**16), st.integers(0, 255))
def test_a_changed_byte_is_refused_or_another_patch(place: int, value: int) -> None:
    data = bytearray(emit_patch(PatchFile(joint(), BASE, (1, 2)), SIZE))
    data[place % len(data)] = value
    try:
        found = parse_patch(bytes(data), "p")
    except CheckError:
        return
    assert emit_patch(found, SIZE) == bytes(data) or b'"disclosed"' in bytes(data)
