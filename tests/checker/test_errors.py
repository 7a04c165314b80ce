"""What an error says: where, which rule, what was expected and what was found; the base class is never raised."""

from __future__ import annotations

import pytest

from prune_verify.checker.errors import CheckError, ProofError

ROWS = [
    ("all of it", ("p", "rule", "one", "two"), "p: rule: expected one, got two"),
    ("nothing found", ("p", "rule", "one"), "p: rule: expected one"),
    ("nothing expected", ("p", "rule", "", "two"), "p: rule, got two"),
    ("a rule alone", ("p", "rule"), "p: rule"),
]


@pytest.mark.parametrize(("sentence", "words", "text"), ROWS, ids=[row[0] for row in ROWS])
def test_texts(sentence: str, words: tuple[str, ...], text: str) -> None:
    assert str(ProofError(*words)) == text


def test_the_base_class_is_abstract() -> None:
    with pytest.raises(TypeError) as refusal:
        CheckError("p", "rule")
    assert "abstract" in str(refusal.value)
