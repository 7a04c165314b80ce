"""Statistics on ensembles of unlearned and retrained networks: no difference, planted differences, controls, refusals."""

import numpy as np
import pytest

pytest.importorskip("scipy")

from prune_verify.measure.attack_distances import _epsilon, _intervals, _points
from prune_verify.measure.attack_ensembles import forgetting_score, klom, u_lira
from prune_verify.measure.attack_input import AttackInputError

pytestmark = pytest.mark.prover

RECORDS, LABELS = 30, 3
LABEL = np.arange(RECORDS) % LABELS


def ensembles(shift=0.0, spread=1.0, networks=24, others=24, seed=0, records=RECORDS):
    """Logits whose margins have another mean or spread for unlearned networks than for retrained ones."""
    rng = np.random.default_rng(seed)
    labels = LABEL[:records]
    truth = np.eye(LABELS)[labels]
    base = rng.normal(size=(records, LABELS)) + 3 * truth
    noise = rng.normal(size=(networks, records, 1)), rng.normal(size=(others, records, 1))
    return base + (shift + spread * noise[0]) * truth, base + noise[1] * truth, labels


def test_networks_of_one_kind_cannot_be_told_apart():
    found = u_lira(*ensembles())
    for one in (found.mean_auc, found.auc, found.accuracy):
        assert one.low <= 0.5 <= one.high
    assert found.record_auc.shape == (RECORDS,)
    assert found.unlearned.shape == found.retrained.shape == (24, RECORDS)
    assert found.tpr is None  # 720 ratios


def test_areas_by_record_are_not_biased_by_leaving_out():
    """With equal networks the mean area is a half; leaving out one network at a time gives 0.43 with 20 of each kind."""
    means = [u_lira(*ensembles(networks=20, others=20, seed=seed)).record_auc.mean() for seed in range(12)]
    assert np.mean(means) == pytest.approx(0.5, abs=4 * np.std(means) / np.sqrt(12))
    assert np.std(means) < 0.03


def test_intervals_cover_no_difference():
    """The resampling of networks and records errs towards too wide, so 95 % is the least."""
    found = [u_lira(*ensembles(networks=20, others=22, seed=100 + seed, records=12)) for seed in range(40)]
    for name in ("mean_auc", "auc", "accuracy"):
        covered = [getattr(one, name).low <= 0.5 <= getattr(one, name).high for one in found]
        assert np.mean(covered) >= 0.9


@pytest.mark.parametrize(
    ("name", "options"), [("higher", {"shift": 2.0}), ("lower", {"shift": -2.0}), ("narrower", {"spread": 0.2})]
)
def test_planted_differences_are_told(name, options):
    found = u_lira(*ensembles(networks=40, others=44, **options))
    for one in (found.mean_auc, found.auc, found.accuracy):
        assert one.low > 0.65
    assert found.tpr.low > 0.01
    assert found.record_auc.min() > 0.6


def test_both_kinds_have_the_same_part():
    """Exchanging the kinds mirrors ratios and keeps areas."""
    one, other, labels = ensembles(shift=1.0)
    found, mirrored = u_lira(one, other, labels), u_lira(other, one, labels)
    assert mirrored.unlearned == pytest.approx(-found.retrained)
    assert mirrored.record_auc == pytest.approx(found.record_auc)
    assert mirrored.auc.value == pytest.approx(found.auc.value)


def test_constant_margins_give_numbers():
    one, other, labels = ensembles()
    same = np.broadcast_to(one[:1], one.shape).copy()
    for first, second in ((same, same), (same, other), (one, same)):
        found = u_lira(first, second, labels)
        assert np.isfinite(found.unlearned).all()
        score, distance = forgetting_score(first, second, labels), klom(first, second, labels)
        assert np.isfinite(score.epsilons).all()
        assert np.isfinite(distance.divergences).all()
    assert u_lira(same, same, labels).auc.value == 0.5
    assert forgetting_score(same, same, labels).score.value == 1
    assert klom(same, same, labels).value.value == 0


def test_forgetting_is_worth_what_retraining_is_worth_when_nothing_differs():
    found = forgetting_score(*ensembles(networks=40, others=40))
    assert found.control.low <= found.matched.value <= found.control.high
    assert found.score.low <= found.score.value <= found.score.high
    assert found.score.value > found.matched.value - 0.1


@pytest.mark.parametrize("options", [{"shift": 4.0}, {"shift": -4.0}, {"spread": 0.02}])
def test_forgetting_is_worth_nothing_when_all_differs(options):
    found = forgetting_score(*ensembles(networks=40, others=40, **options))
    assert found.score.high < 0.25
    assert found.matched.high < found.control.low


EPSILONS = [
    ("the same point", [1] * 20, [1] * 20, 0.0),
    ("two points", [1] * 20, [2] * 20, 50.0),
    ("a point in a range", [1] * 20, range(20), 50.0),
    ("separated", range(20), range(30, 50), 50.0),
    ("separated but for ties, which an interval tells", range(20), range(19, 39), np.log((1 - 1e-5 - 0.05) / 0.05)),
    ("the same, far apart", range(0, 2000, 100), range(1900, 3900, 100), np.log((1 - 1e-5 - 0.05) / 0.05)),
    ("one of ten on the wrong side", [*[9] * 18, 0, 1], [*[0] * 18, 9, 8], np.log((1 - 1e-5 - 0.1) / 0.05)),
    ("equal", [*[0] * 10, *[9] * 10], [*[0] * 10, *[9] * 10], 0.0),
]  # fmt: skip


@pytest.mark.parametrize(
    ("unlearned", "retrained", "expected"), [row[1:] for row in EPSILONS], ids=[row[0] for row in EPSILONS]
)
def test_epsilons_by_hand(unlearned, retrained, expected):
    found = _epsilon(np.array(unlearned, dtype=float), np.array(retrained, dtype=float), 1e-5)
    assert found == pytest.approx(expected, abs=2e-5)


@pytest.mark.parametrize(("networks", "bins"), [(20, 6), (64, 10), (512, 14)])
def test_points_halve_until_networks_are_too_few(networks, bins):
    """ceil(log(networks - 1)) is where points end: 3, 5 and 7."""
    epsilons = np.arange(bins + 2) / 2 + 0.25
    assert _points(epsilons, networks).tolist() == [*(0.5 ** np.arange(bins)), 0, 0]
    assert _points(np.array([0.0, 0.5, 50.0]), networks).tolist() == [1, 0.5, 0]


def test_intervals_that_decide_differently_are_each_tried_once():
    """Against the grid that they stand for: every pair of thresholds within the buffer, counted directly."""
    rng = np.random.default_rng(1)
    narrow, wide = np.round(rng.normal(0, 1, 7), 1), np.round(rng.normal(0, 6, 9), 1)
    missed, caught = _intervals(np.unique(np.concatenate([narrow, wide])), narrow, wide)
    width, end, seen = np.ptp(narrow), narrow.max(), set()
    for right in np.arange(end - 2, end + 2.0001, 0.02):
        for left in np.arange(right - width - 2, right - width + 2.0001, 0.02):
            errors = (
                1 - np.mean((narrow >= left - 1e-9) & (narrow <= right + 1e-9)),
                np.mean((wide >= left - 1e-9) & (wide <= right + 1e-9)),
            )
            seen.add(tuple(np.round(errors, 9)))
    seen -= {(1.0, 0.0)}  # no value inside
    assert {tuple(np.round(pair, 9)) for pair in zip(missed, caught, strict=True)} - {(1.0, 0.0)} == seen


def test_klom_by_hand():
    """Two values: all unlearned margins high, half of the retrained ones: log 2; and the other way half against the floor."""
    labels = np.zeros(1, dtype=np.int64)
    one, other = np.zeros((20, 1, 2)), np.zeros((20, 1, 2))
    one[:, 0, 0], other[:10, 0, 0], other[10:, 0, 0] = 4, 4, -4
    found = klom(one, other, labels)
    assert found.value.value == pytest.approx(np.log(2))
    assert found.reverse.value == pytest.approx(0.5 * np.log(0.5) + 0.5 * np.log(0.5 / 1e-5) + np.log(1 + 1e-5))
    assert (found.value.low, found.value.high) == (0, pytest.approx(-np.log(1e-5), abs=2e-3))


def test_klom_clips_margins():
    one, other, labels = ensembles()
    found = klom(one * 1e6, other * 1e6, labels)
    assert found.value.value < 1
    assert np.isfinite(found.divergences).all()


def test_klom_of_equal_networks_is_the_floor_and_of_others_is_above():
    same, moved = klom(*ensembles(networks=40, others=40)), klom(*ensembles(shift=3.0, networks=40, others=40))
    assert same.control.low <= same.matched.high
    assert same.matched.low <= same.control.high
    assert moved.matched.low > moved.control.high
    assert moved.value.low > same.value.high
    narrow = klom(*ensembles(spread=0.2, networks=40, others=40))
    assert narrow.matched_reverse.low > narrow.control.high
    assert narrow.matched.low < narrow.control.high
    assert same.control.value > 0.5  # 20 networks in 20 bins: never zero, which is why a control is given


@pytest.mark.parametrize("statistic", [u_lira, forgetting_score, klom])
def test_records_stand_for_themselves(statistic):
    """In another order, and with other networks first, each record keeps its number."""
    one, other, labels = ensembles(shift=1.0)
    order = np.random.default_rng(5).permutation(RECORDS)
    first, second = statistic(one, other, labels), statistic(one[:, order], other[:, order], labels[order])
    name = {u_lira: "record_auc", forgetting_score: "epsilons", klom: "divergences"}[statistic]
    assert getattr(second, name) == pytest.approx(getattr(first, name)[order])
    again = statistic(one[::-1], other[::-1], labels)
    assert getattr(again, name) == pytest.approx(getattr(first, name))


@pytest.mark.parametrize("statistic", [u_lira, forgetting_score, klom])
def test_one_record_and_the_same_seed(statistic):
    one, other, labels = ensembles(records=1)
    first, second = statistic(one, other, labels, seed=3), statistic(one, other, labels, seed=3)
    name = {u_lira: "auc", forgetting_score: "score", klom: "value"}[statistic]
    assert getattr(first, name) == getattr(second, name)
    assert getattr(first, name).low < getattr(first, name).high


BAD = [
    ("too few unlearned networks", {"networks": 19}, {}, "unlearned: expected at least 20 networks, found 19"),
    ("too few retrained networks", {"others": 19}, {}, "retrained: expected at least 20 networks, found 19"),
    ("confidence of one", {}, {"confidence": 1.0}, "confidence: expected a number in (0, 1), found 1.0"),
    ("no records", {"records": 0}, {}, "unlearned: expected at least one record and two labels, found shape [24, 0, 3]"),
]  # fmt: skip


@pytest.mark.parametrize("statistic", [u_lira, forgetting_score, klom])
@pytest.mark.parametrize(("made", "options", "text"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_what_is_refused(statistic, made, options, text):
    with pytest.raises(AttackInputError) as refused:
        statistic(*ensembles(**made), **options)
    assert str(refused.value) == text


@pytest.mark.parametrize("statistic", [u_lira, forgetting_score, klom])
def test_shapes_that_do_not_fit_are_refused(statistic):
    one, other, labels = ensembles()
    rows = [
        ((one[0], other, labels), "unlearned: expected shape [any, any, any], found [30, 3]"),
        ((one, other[:, 1:], labels), "retrained: expected shape [any, 30, 3], found [24, 29, 3]"),
        ((one, other, labels[1:]), "labels: expected shape [30], found [29]"),
        ((one, other, labels + 1), "labels: expected labels in [0, 3), found 1 to 3"),
        (
            (one, np.where(other > 9, np.nan, other) * np.nan, labels),
            "retrained: expected finite numbers, found nan at [0, 0, 0]",
        ),
    ]
    for given, text in rows:
        with pytest.raises(AttackInputError) as refused:
            statistic(*given)
        assert str(refused.value) == text


@pytest.mark.parametrize("delta", [-0.1, 1.0, float("nan")])
def test_a_delta_out_of_range_is_refused(delta):
    with pytest.raises(AttackInputError) as refused:
        forgetting_score(*ensembles(), delta=delta)
    assert str(refused.value) == f"delta: expected a number in [0, 1), found {delta}"
