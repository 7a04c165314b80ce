"""The threat model from TOML: exact decimals, every member known, every refusal named."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from prune_verify.checker.region import Domain
from prune_verify.repair.errors import RepairInputError
from prune_verify.repair.threat_model import ThreatModel, default_threat_model, emit_threat_model, load_threat_model

UNIT = Domain((Fraction(0),), (Fraction(1),))


def load(tmp_path: Path, text: str):
    path = tmp_path / "t.toml"
    path.write_text(text)
    return load_threat_model(path, default_threat_model(UNIT))


def test_defaults_follow_the_narrowest_interval() -> None:
    model = default_threat_model(Domain((Fraction(0), Fraction(-5)), (Fraction(2), Fraction(5))))
    assert (model.radius, model.retained_radius, model.distance) == (Fraction(1, 5), Fraction(1, 10), Fraction(1, 25))


def test_what_is_said_replaces_the_default_exactly(tmp_path: Path) -> None:
    text = """
    radius = 0.07
    cover = 3
    access = "label"
    disclosure_bits = 500
    domain = {lower = -1, upper = [0.5]}
    [membership_acceptance]
    lira = "0.1"
    """
    model = load(tmp_path, text)
    assert model.radius == Fraction(7, 100)
    assert (model.cover, model.access, model.disclosure_bits) == (3, "label", 500)
    assert model.domain == Domain((Fraction(-1),), (Fraction(1, 2),))
    assert model.membership_acceptance == (("lira", "0.1"),)
    assert model.retained_radius == Fraction(1, 20)


ROWS = [
    ("not TOML", "radius = ", "expected TOML"),
    ("an unknown member", "raduis = 0.1", "raduis"),
    ("a radius in words", 'radius = "0.1"', "radius"),
    ("a radius of zero", "radius = 0", "radius is to be above 0"),
    ("a negative gap", "gap = -0.1", "gap is to be above 0"),
    ("an infinite margin", "margin = inf", "margin"),
    ("a boolean cover", "cover = true", "cover"),
    ("a cover of zero", "cover = 0", "cover is to be 1 or more"),
    ("an unknown access", 'access = "root"', "access"),
    ("a domain of one end", "domain = {lower = 0}", "domain"),
    ("bits in words", 'disclosure_bits = "many"', "disclosure_bits"),
]


@pytest.mark.parametrize(("sentence", "text", "named"), ROWS, ids=[row[0] for row in ROWS])
def test_refusals(tmp_path: Path, sentence: str, text: str, named: str) -> None:
    with pytest.raises(RepairInputError, match=named):
        load(tmp_path, text)


@pytest.mark.parametrize(
    "model",
    [
        default_threat_model(UNIT),
        ThreatModel(
            Domain((Fraction(-1), Fraction(0)), (Fraction(1, 2), Fraction(3))),
            Fraction("0.07"),
            Fraction("0.001"),
            margin=Fraction("0.125"),
            delta=Fraction("0.3"),
            cover=4,
            gap=Fraction("0.002"),
            access="white-box",
            redirect="non-member",
            disclosure_bits=900,
            disclosure_bits_per_record=64,
            membership_acceptance=(("auc", "0.55"), ('a "quoted" name', "0.1")),
        ),
    ],
)
def test_what_is_emitted_reads_back_as_it_was(tmp_path: Path, model: ThreatModel) -> None:
    path = tmp_path / "t.toml"
    path.write_text(emit_threat_model(model))
    assert load_threat_model(path, default_threat_model(UNIT)) == model


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('norm = "l2"', "what is proved are boxes"),
        ('redirect = "random"', "misclassify, non-member"),
        ("disclosure_bits = -1", "disclosure_bits is to be 0 or more"),
        ("disclosure_bits_per_record = 1.5", "expected an integer"),
    ],
)
def test_lines_that_cannot_be_meant_are_refused(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(RepairInputError, match=words):
        load(tmp_path, text)
