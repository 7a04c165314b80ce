"""Which records of a committed training set are forgotten and retained: found by value, or named as what is wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prune_verify.certify.committed import training_opening
from prune_verify.certify.errors import CertifyInputError
from prune_verify.checker.commitment import _put_together
from prune_verify.checker.merkle import set_root
from prune_verify.checker.records import Records, canonical_records
from prune_verify.cli import run_words

KEY = bytes(range(32))


def records(name: str, *rows: tuple[float, int]) -> Records:
    x = np.array([[value] for value, _ in rows], dtype=np.float32).reshape(len(rows), 1)
    return Records(x, np.array([label for _, label in rows], dtype=np.int64), None, name)


A, B, C, D, E = ((place / 8, place % 2) for place in range(1, 6))
TWIN_OF_B = (B[0], 1 - B[1])
TRAINING = records("train", A, B, C, D, E)

SPLITS = [
    ("in another order of the forget set", (D, A), (B, C, E), (A, B, C, D, E), (3, 0), ()),
    ("a record twice in both", (B, B), (A, C), (B, A, C, B), (0, 3), ()),
    ("a record twice, once to be forgotten: the other is its twin", (B,), (A, C), (B, A, C, B), (0,), (3,)),
    ("a twin under another label", (B,), (A, C), (A, B, C, TWIN_OF_B), (1,), (3,)),
    ("everything is forgotten but one", (A, B), (C,), (A, B, C), (0, 1), ()),
    ("a retained record twice", (A,), (C, C), (A, C, C), (0,), ()),
]


@pytest.mark.parametrize(
    ("sentence", "forget", "retain", "train", "indices", "twins"), SPLITS, ids=[r[0] for r in SPLITS]
)
def test_places_are_found_by_value(sentence, forget, retain, train, indices, twins) -> None:
    found = training_opening(KEY, records("t", *train), records("f", *forget), records("r", *retain))
    assert found.forget_indices == indices
    assert tuple(place for place, _ in found.twins) == twins


REFUSED = [
    ("a forget record that was never used", (A, (0.9, 0)), (B, C, D, E), "f: record 1 (1 in all) is no record of train"),
    ("a near-duplicate", ((A[0] + 1e-6, A[1]),), (B, C, D, E), "f: record 0 (1 in all) is no record of train"),
    ("another label", ((A[0], 1 - A[1]),), (B, C, D, E), "f: record 0 (1 in all) is no record of train"),
    ("a forget record twice that was used once", (A, A), (B, C, D, E), "f: record 1 (1 in all) is no record of train"),
    ("a record left out", (A,), (B, C, E), "train: record 3 (1 in all) is neither to be forgotten nor in r"),
    ("a retained record that was never used", (A,), (B, C, D, E, (0.9, 1)), "r: record 4 (1 in all) is no record"),
    ("a retained record one time too many", (A,), (B, C, C, D, E), "r: record 1, 2 (2 in all) is no record, or one too many"),
    ("the forgotten record retained", (A,), (A, B, C, D, E), "r: record 0 (1 in all) is no record, or one too many"),
    ("another order", (A,), (B, D, C, E), "record 1 should be record 2 of it"),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "forget", "retain", "words"), REFUSED, ids=[row[0] for row in REFUSED])
def test_sets_that_are_not_the_training_set(sentence, forget, retain, words) -> None:
    with pytest.raises(CertifyInputError) as caught:
        training_opening(KEY, TRAINING, records("f", *forget), records("r", *retain))
    assert words in str(caught.value)


@given(
    st.lists(st.tuples(st.sampled_from([0.0, -0.0, 0.5, 1.0]), st.integers(0, 1)), min_size=2, max_size=9), st.data()
)
def test_what_is_found_puts_the_training_set_together_again(rows: list, data: st.DataObject) -> None:
    """Whatever is forgotten, in whatever order, twins included: the checker's root is that of the committed set."""
    places = data.draw(st.permutations(range(len(rows))))[: data.draw(st.integers(1, len(rows) - 1))]
    values = {rows[place][0] for place in places}
    rest = [row for place, row in enumerate(rows) if place not in places and row[0] not in values]
    train, forget = records("t", *rows), records("f", *(rows[place] for place in places))
    retain = records("r", *rest)
    found = training_opening(KEY, train, forget, retain)
    assert set_root(KEY, _put_together(found, forget, retain, len(rows))) == set_root(KEY, canonical_records(train))


def test_options_go_together(tmp_path: Path, repository: Path) -> None:
    example = repository / "certs" / "examples" / "digits-records"
    request = repository / "patches"
    requests = sorted(request.glob("*/request.json"))
    words = ["certify", str(example / "base.onnx"), str(example / "patched.onnx"), "--request", str(requests[0])]
    sets = [
        "--forget",
        str(example / "forget.npz"),
        "--retain",
        str(example / "retain.npz"),
        "--out",
        str(tmp_path / "o"),
    ]
    code, text = run_words([*words, *sets, "--training", str(example / "retain.npz")])
    assert code == 2
    assert "--commitment-openings" in text
    assert not (tmp_path / "o").exists()
