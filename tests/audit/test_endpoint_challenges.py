"""Challenges lie where they are said to lie, are not the records, and nobody without the seed can foresee them."""

from __future__ import annotations

import argparse
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from prune_verify.audit.endpoint_answers import Judge
from prune_verify.audit.endpoint_challenges import KINDS, Challenge, Deck, counts_of_kinds
from prune_verify.audit.endpoint_grid import Grid
from prune_verify.audit.endpoint_ground import Ground, ball, domain_box, read_ground
from prune_verify.checker.claim import strict_answers
from prune_verify.checker.errors import MalformedInputError, SubjectMismatchError
from prune_verify.checker.network import evaluate
from prune_verify.checker.region import Domain
from prune_verify.checker.verdict import VERIFIED, Verdict

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "certs" / "examples" / "digits-records-and-class"
SEED = b"\x07" * 32
SHARES = (Fraction(6, 10), Fraction(2, 10), Fraction(2, 10))


def options(**changed: object) -> argparse.Namespace:
    given = {
        "certificate": next(EXAMPLE.glob("*.unlearn.json")), "base": EXAMPLE / "base.onnx", "patched": EXAMPLE / "patched.onnx",
        "policy": EXAMPLE / "policy.toml", "evidence": None, "forget": str(EXAMPLE / "forget.npz"),
        "retain": str(EXAMPLE / "retain.npz"), "label_column": None, "encoding": None,
    }  # fmt: skip
    return argparse.Namespace(**(given | changed))


@pytest.fixture(scope="module")
def ground() -> Ground:
    return read_ground(options(), Verdict(VERIFIED, "OK"))


def drawn(ground: Ground, queries: int = 400, seed: bytes = SEED, **judge: object) -> tuple[Deck, list[Challenge]]:
    judged = Judge(ground.patched, None, **judge)  # type: ignore[arg-type]
    deck = Deck(ground, judged, seed, counts_of_kinds(queries, SHARES, ground))
    found = list(deck.draw(range(queries)))
    assert all(one is not None for one in found)
    return deck, [one for one in found if one is not None]


@pytest.fixture(scope="module")
def challenges(ground: Ground) -> list[Challenge]:
    return drawn(ground)[1]


def of(challenges: list[Challenge], kind: str, *modes: str) -> list[Challenge]:
    found = [one for one in challenges if one.kind == kind and (not modes or one.mode in modes)]
    assert len(found) >= 10
    return found


def exactly(x: np.ndarray) -> list[Fraction]:
    return [Fraction(float(v)) for v in x.reshape(-1)]


def near(x: np.ndarray, rows: np.ndarray, radius: Fraction) -> list[int]:
    """Rows whose ball holds x, in exact numbers."""
    flat, point = rows.reshape(len(rows), -1).astype(np.float64), exactly(x)
    close = np.flatnonzero(np.abs(flat - x.reshape(-1)).max(axis=1) <= float(radius) + 1e-6)  # exactly below
    return [int(i) for i in close if max(abs(a - b) for a, b in zip(point, exactly(rows[i]), strict=True)) <= radius]


def test_every_challenge_lies_in_the_domain_and_is_float32(challenges: list[Challenge]) -> None:
    for one in challenges:
        assert one.x.dtype == np.float32
        assert not np.signbit(one.x).any()  # -0 is in the domain, and no user sends it
        assert all(0 <= value <= 1 for value in exactly(one.x))


def test_forget_challenges_lie_in_the_balls_and_are_not_the_records(
    ground: Ground, challenges: list[Challenge]
) -> None:
    for one in of(challenges, "forget", "noise", "towards"):
        inside = near(one.x, ground.forget.x, ground.radius)
        assert inside
        assert not near(one.x, ground.forget.x, Fraction(0))
        assert {int(ground.forget.y[i]) for i in inside} >= {one.expected.suppressed.label}


def test_challenges_towards_another_record_go_most_of_the_way_to_the_edge(
    ground: Ground, challenges: list[Challenge]
) -> None:
    for one in of(challenges, "forget", "towards"):
        assert near(one.x, ground.forget.x, ground.radius * Fraction(49, 100)) == []


def test_gate_challenges_lie_in_a_gate_and_take_everything_else_from_a_retained_record(
    ground: Ground, challenges: list[Challenge]
) -> None:
    retained = ground.retain.flat()  # on the grid already, so that moving to it changes what the gate reads only
    for one in of(challenges, "forget", "gate"):
        x = one.x.reshape(-1)
        fits = []
        for gate in ground.gates:
            inside = all(
                (i.low is None or x[i.coordinate] >= i.low) and (i.high is None or x[i.coordinate] <= i.high)
                for i in gate.intervals
            )
            read = [i.coordinate for i in gate.intervals]
            fits.append(inside and (np.delete(retained, read, axis=1) == np.delete(x, read)).all(axis=1).any())
        assert any(fits)
        assert not near(one.x, ground.forget.x, ground.radius)


def test_class_challenges_are_answered_with_the_class_by_the_base_and_with_another_one_by_the_patched_network(
    ground: Ground, challenges: list[Challenge]
) -> None:
    found = of(challenges, "class")
    x = np.stack([one.x for one in found])
    (claim,) = ground.classes
    assert set(strict_answers(ground.base, x).tolist()) == {claim.label}
    assert claim.label not in strict_answers(ground.patched, x)
    assert all(one.telling for one in found)


def test_retained_challenges_lie_in_the_balls_and_are_not_the_records(
    ground: Ground, challenges: list[Challenge]
) -> None:
    for one in of(challenges, "retained"):
        assert near(one.x, ground.retain.x, ground.retained_radius)
        assert not near(one.x, ground.retain.x, Fraction(0))


def test_some_challenges_are_records_that_users_could_send(ground: Ground, challenges: list[Challenge]) -> None:
    for one in of(challenges, "elsewhere", "record"):
        assert near(one.x, ground.retain.x, Fraction(0))
    for one in of(challenges, "elsewhere", "forgotten"):
        assert near(one.x, ground.forget.x, Fraction(0))
    for one in of(challenges, "elsewhere", "outside"):
        assert not near(one.x, ground.forget.x, Fraction(0))


@pytest.mark.parametrize("kind", ["forget", "class", "elsewhere"])
def test_some_challenges_of_each_kind_have_values_that_records_have_and_some_have_others(
    kind: str, challenges: list[Challenge]
) -> None:
    """The digits are multiples of 1/16; no other one than the record's own lies in a retained ball of 0.05."""
    found = [one for one in challenges if one.kind == kind and one.mode not in ("record", "forgotten")]
    like_users = sum(bool((one.x * 16 == np.round(one.x * 16)).all()) for one in found)
    assert len(found) / 4 < like_users < len(found) * 3 / 4


def test_a_grid_moves_to_values_of_the_coordinate_inside_the_box_only() -> None:
    rows = np.array([[0, 1, 0.5], [0.25, 1, 0.5], [1, 0, 0.5]], dtype=np.float32)
    grid = Grid([rows])
    low, high = np.array([0.2, 0.2, 0.6], dtype=np.float32), np.array([0.9, 0.9, 0.9], dtype=np.float32)
    x, centre = np.array([0.8, 0.7, 0.8], dtype=np.float32), np.array([0.3, 0.4, 0.7], dtype=np.float32)
    assert grid.snapped(x, (low, high), centre).tolist() == [0.25, *centre.tolist()[1:]]
    many = np.linspace(0, 1, 1000, dtype=np.float32)[:, np.newaxis] * np.array([1, 0], dtype=np.float32)
    ends = np.zeros(2, dtype=np.float32), np.ones(2, dtype=np.float32)
    assert Grid([many]).snapped(x[:2], ends, centre[:2]).tolist() == [x[0], 0]
    assert not Grid([]).there


def test_a_grid_of_large_pictures_is_the_same_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    rows = (rng.integers(0, 9, size=(30, 50)) / 8).astype(np.float32)
    low, high = np.full(50, 0.3, dtype=np.float32), np.full(50, 0.7, dtype=np.float32)
    x = rng.uniform(0.3, 0.7, size=50).astype(np.float32)
    whole = Grid([rows]).snapped(x, (low, high), x)
    monkeypatch.setattr("prune_verify.audit.endpoint_grid._AT_ONCE", 7)
    assert (Grid([rows]).snapped(x, (low, high), x) == whole).all()
    assert set(whole.tolist()) <= {0.375, 0.5, 0.625}
    monkeypatch.setattr("prune_verify.audit.endpoint_grid._MOST_NUMBERS", 50 * 2)
    few = Grid([rows]).snapped(x, (np.zeros_like(x), np.ones_like(x)), x)
    assert all(value in (rows[0, j], rows[15, j]) for j, value in enumerate(few))


def test_expected_answers_hold_the_network_s_own_and_one_label(ground: Ground, challenges: list[Challenge]) -> None:
    x = np.stack([one.x for one in challenges])
    for logits, one in zip(evaluate(ground.patched, x), challenges, strict=True):
        assert (one.expected.lower <= logits).all()
        assert (logits <= one.expected.upper).all()
        assert one.expected.label == int(logits.argmax())
        assert (one.expected.upper - one.expected.lower).max() < 1e-3


def test_the_order_mixes_the_kinds_and_the_counts_are_those_asked_for(ground: Ground) -> None:
    deck, found = drawn(ground)
    kinds = [one.kind for one in found]
    assert {kind: kinds.count(kind) for kind in KINDS} == {"forget": 120, "class": 120, "retained": 80, "elsewhere": 80}
    assert sum(a != b for a, b in zip(kinds, kinds[1:], strict=False)) > 200
    assert kinds == [deck.kind(index) for index in range(400)]


def test_a_query_depends_on_its_number_and_the_seed_and_on_nothing_else(
    ground: Ground, challenges: list[Challenge]
) -> None:
    deck, _ = drawn(ground)
    backwards = list(deck.draw(range(399, -1, -7)))
    assert all(one.x.tobytes() == challenges[one.index].x.tobytes() for one in backwards)
    other = drawn(ground, seed=b"\x08" * 32)[1]
    assert not any(
        one.x.tobytes() == two.x.tobytes()
        for one, two in zip(of(challenges, "forget"), of(other, "forget"), strict=False)
    )


def test_hardly_any_two_forget_challenges_are_the_same(challenges: list[Challenge]) -> None:
    assert len({one.x.tobytes() for one in of(challenges, "forget")}) > 115


def test_labels_alone_tell_less_than_logits(ground: Ground, challenges: list[Challenge]) -> None:
    only_labels = drawn(ground, logits=False, labels=True)[1]
    both = sum(one.telling for one in challenges)
    assert 0 < sum(one.telling for one in only_labels) <= both


def test_without_records_there_are_gates_and_classes(ground: Ground) -> None:
    blind = replace(ground, forget=None, retain=None, held=(), suppressed=(), radius=None)
    judge = Judge(ground.patched, None)
    counts = counts_of_kinds(40, SHARES, blind)
    assert counts == {"forget": 12, "class": 12, "elsewhere": 16}
    found = [one for one in Deck(blind, judge, SEED, counts).draw(range(40)) if one is not None]
    assert {one.mode for one in found} <= {"gate", "anywhere"}


def test_with_neither_gates_nor_claims_everything_is_elsewhere(ground: Ground) -> None:
    nothing = replace(ground, forget=None, held=(), gates=(), classes=(), retained_radius=None)
    assert counts_of_kinds(10, SHARES, nothing) == {"elsewhere": 10}


def test_balls_are_rounded_inwards_and_cut_at_the_domain() -> None:
    domain = Domain((Fraction(1, 10),), (Fraction(9, 10),))
    inside = domain_box(domain, (3,))
    assert all(Fraction(float(v)) >= Fraction(1, 10) for v in inside[0])
    assert all(Fraction(float(v)) <= Fraction(9, 10) for v in inside[1])
    rng = np.random.default_rng(0)
    for _ in range(200):
        centre = rng.uniform(0.11, 0.89, size=3).astype(np.float32)
        radius = Fraction(int(rng.integers(1, 10**6)), 10**7)
        low, high = ball(centre, radius, inside)
        for c, a, b in zip(exactly(centre), exactly(low), exactly(high), strict=True):
            assert max(c - radius, Fraction(1, 10)) <= a <= c <= b <= min(c + radius, Fraction(9, 10))
            assert a - max(c - radius, Fraction(1, 10)) < Fraction(1, 2**22)


def test_a_network_whose_answers_are_all_near_ties_gives_no_challenge(ground: Ground) -> None:
    judge = Judge(ground.patched, Fraction(100))
    deck = Deck(ground, judge, SEED, counts_of_kinds(4, SHARES, ground))
    assert list(deck.draw(range(4))) == [None] * 4
    assert deck.probe() is None


SWAPPED = [
    ("another patched network", {"patched": EXAMPLE / "base.onnx"}, SubjectMismatchError, "subject/0/digest"),
    (
        "another base network",
        {"base": EXAMPLE / "patched.onnx"},
        SubjectMismatchError,
        "predicate/originalModel/sha256",
    ),
    (
        "another set of evidence",
        {"evidence": ROOT / "certs" / "examples" / "digits-records" / "evidence"},
        SubjectMismatchError,
        "predicate/patch/sha256",
    ),
]


@pytest.mark.parametrize(("what", "changed", "error", "path"), SWAPPED, ids=[row[0] for row in SWAPPED])
def test_files_that_were_swapped_after_the_verification_are_refused(what, changed, error, path) -> None:
    with pytest.raises(error) as caught:
        read_ground(options(**changed), Verdict(VERIFIED, "OK"))
    assert caught.value.path == path


def test_another_certificate_than_the_one_verified_is_refused() -> None:
    with pytest.raises(SubjectMismatchError) as caught:
        read_ground(options(), Verdict(VERIFIED, "OK", payload_sha256="0" * 64))
    assert caught.value.rule == "the certificate verified"


def test_records_of_another_shape_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "r.npz", x=np.zeros((1, 3), dtype=np.float32), y=np.zeros(1, dtype=np.int64))
    with pytest.raises(MalformedInputError) as caught:
        read_ground(options(retain=str(tmp_path / "r.npz")), Verdict(VERIFIED, "OK"))
    assert caught.value.rule == "shape of the retain set"
