"""Scores of membership inference on planted observations: closed forms, symmetry, signals, degenerate cases, refusals."""

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("scipy")

from prune_verify.measure.attack_input import AttackInputError, scaled_margins
from prune_verify.measure.attack_likelihood import moderated_variances
from prune_verify.measure.attack_relative import log_confidences, rmia_offline, rmia_online
from prune_verify.measure.attack_scores import ATTACKS, Observations, label_only, population_loss
from prune_verify.measure.roc import auc

pytestmark = pytest.mark.prover

RECORDS, SHADOWS, LABELS, POPULATION = 240, 24, 4, 150
MEMBERS = np.arange(RECORDS) % 2 == 0


def planted(gain=2.0, seed=0, forgotten=0.0):
    """Networks whose margin on a record rises by ``gain`` if trained on it; members' margins then fall by ``forgotten``."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, LABELS, RECORDS)
    truth = np.eye(LABELS)[labels]
    base = rng.normal(size=(RECORDS, LABELS)) + truth * rng.normal(2, 3, (RECORDS, 1))
    inside = rng.random((SHADOWS, RECORDS)) < 0.5
    inside[:2] = [[True], [False]]
    shadows = base + rng.normal(0, 0.7, (SHADOWS, RECORDS, LABELS)) + gain * inside[..., None] * truth
    before = base + rng.normal(0, 0.7, (RECORDS, LABELS)) + gain * MEMBERS[:, None] * truth
    target = before - forgotten * MEMBERS[:, None] * truth
    population_labels = rng.integers(0, LABELS, POPULATION)
    middle = rng.normal(size=(POPULATION, LABELS)) + np.eye(LABELS)[population_labels] * rng.normal(
        2, 3, (POPULATION, 1)
    )
    chance = 0.5 + 0.08 * (gain - forgotten) * MEMBERS
    return Observations(
        labels=labels,
        target=target,
        shadows=shadows,
        inside=inside,
        before=before,
        nearby=np.where(rng.random((RECORDS, 40)) < chance[:, None], labels[:, None], (labels[:, None] + 1) % LABELS),
        population=middle + rng.normal(0, 0.7, middle.shape),
        population_labels=population_labels,
        population_shadows=middle + rng.normal(0, 0.7, (SHADOWS, *middle.shape)),
    )


def area(name, observations):
    scores = ATTACKS[name](observations)
    assert scores.shape == (RECORDS,)
    assert scores.dtype == np.float64
    assert np.isfinite(scores).all()
    return auc(scores[MEMBERS], scores[~MEMBERS])


@pytest.mark.parametrize("name", ATTACKS)
def test_without_a_signal_the_area_is_a_half(name):
    found = area(name, planted(gain=0.0))
    assert found.low <= 0.5 <= found.high


@pytest.mark.parametrize(
    ("name", "least"),
    [("lira-online", 0.9), ("lira-offline", 0.9), ("rmia-online", 0.75), ("rmia-offline", 0.75), ("population-loss", 0.55), ("label-only", 0.8), ("unlike-non-member", 0.8), ("unlike-outputs", 0.7)],
)  # fmt: skip
def test_a_planted_signal_is_found(name, least):
    found = area(name, planted(gain=2.5))
    assert found.low > least


def test_attacks_that_know_the_record_beat_those_that_do_not():
    observations = planted(gain=2.0)
    loss = area("population-loss", observations)
    for name in ("lira-online", "lira-offline", "rmia-online", "rmia-offline"):
        assert area(name, observations).low > loss.high


def test_forgetting_too_well_is_found_on_two_sides_and_missed_on_one():
    observations = planted(gain=2.0, forgotten=7.0)
    for name in ("lira-offline", "rmia-offline", "population-loss"):
        assert area(name, observations).high < 0.5
    assert area("unlike-non-member", observations).low > 0.95
    assert area("unlike-outputs", observations).low > 0.95
    assert area("two-version", observations).low > 0.95


def test_an_imitated_margin_with_foreign_logits_is_found_by_all_outputs_together():
    """Two logits of wrong labels exchange 3 units such that the margin stays as it was."""
    observations = planted(gain=0.0)
    target = observations.target.copy()
    for i in np.flatnonzero(MEMBERS):
        others = np.delete(np.arange(LABELS), observations.labels[i])
        order = others[np.argsort(target[i, others])]
        target[i, order] = target[i, order[::-1]]
    changed = replace(observations, target=target)
    margins = scaled_margins(target, observations.labels)
    assert margins == pytest.approx(scaled_margins(observations.target, observations.labels))
    one, all_outputs = area("unlike-non-member", changed), area("unlike-outputs", changed)
    assert one.low <= 0.5 <= one.high
    assert all_outputs.low > 0.65


def test_a_record_forgotten_to_the_non_members_level_is_unlike_nobody():
    observations = planted(gain=2.0, forgotten=2.0)
    for name in ("lira-online", "lira-offline", "rmia-online", "rmia-offline", "unlike-non-member", "unlike-outputs"):
        found = area(name, observations)
        assert found.low <= 0.5 <= found.high
    assert area("two-version", observations).low > 0.95  # who kept the earlier network still sees the change


@pytest.mark.parametrize("name", ATTACKS)
def test_logits_up_to_a_constant_are_the_same_answer(name):
    observations = planted()
    rng = np.random.default_rng(3)

    def shifted(logits):
        return logits + rng.normal(0, 5, (*logits.shape[:-1], 1))

    names = ("target", "shadows", "before", "population", "population_shadows")
    moved = replace(observations, **{one: shifted(getattr(observations, one)) for one in names})
    assert ATTACKS[name](moved) == pytest.approx(ATTACKS[name](observations), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("name", ATTACKS)
def test_the_order_of_shadows_and_of_records_does_not_matter(name):
    observations = planted()
    rng = np.random.default_rng(4)
    shadows, records = rng.permutation(SHADOWS), rng.permutation(RECORDS)
    moved = replace(
        observations,
        labels=observations.labels[records],
        target=observations.target[records],
        shadows=observations.shadows[shadows][:, records],
        inside=observations.inside[shadows][:, records],
        before=observations.before[records],
        nearby=observations.nearby[records],
        population_shadows=observations.population_shadows[shadows],
    )
    assert ATTACKS[name](moved) == pytest.approx(ATTACKS[name](observations)[records], rel=1e-9)


@pytest.mark.parametrize("name", ["lira-offline", "rmia-offline", "unlike-non-member", "unlike-outputs", "two-version"])
def test_offline_attacks_do_not_look_at_shadows_that_saw_the_record(name):
    observations = planted()
    noise = np.random.default_rng(5).normal(0, 50, observations.shadows.shape)
    changed = replace(observations, shadows=observations.shadows + noise * observations.inside[..., None])
    assert ATTACKS[name](changed) == pytest.approx(ATTACKS[name](observations))


def test_margins_from_logits_neither_saturate_nor_tie():
    """The reference's log(p + 1e-45) answers the same for both; a distribution function of z = 9 or 10 would, too."""
    labels = np.array([0, 0, 0])
    logits = np.array([[200.0, 0.0, -1.0], [300.0, 0.0, -1.0], [-900.0, 0.0, -np.log(2)]])
    margins = scaled_margins(logits, labels)
    rest = np.log1p(np.exp(-1.0))
    assert margins == pytest.approx([200 - rest, 300 - rest, -900 - np.log(1.5)], rel=1e-15)
    assert log_confidences(logits, labels) == pytest.approx(
        [-np.exp(-margins[0]), -np.exp(-margins[1]), margins[2]], rel=1e-12
    )


def few(**changes):
    """Three records, two labels, four shadows; record 0 in two of them, record 1 in one, record 2 in three."""
    inside = np.array([[1, 1, 1], [1, 0, 1], [0, 0, 1], [0, 0, 0]], dtype=bool)
    shadows = np.zeros((4, 3, 2))
    shadows[..., 0] = [[3, 4, 5], [5, 0, 5], [1, 2, 8], [3, 1, 0]]
    return replace(Observations(np.array([0, 0, 1]), np.array([[4.0, 0], [1, 0], [0, 2]]), shadows, inside), **changes)


def test_scores_by_hand():
    """One spread for all: outside (1, 3), (0, 2, 1), (0): squares 2 + 2 + 0 over 1 + 2 + 0 degrees; inside 2 + 0 + 6 over 3."""
    observations = few()
    out, ins = np.sqrt(4 / 3), np.sqrt(8 / 3)
    assert ATTACKS["lira-offline"](observations) == pytest.approx(np.array([4 - 2, 1 - 1, 2 - 0]) / out)
    ratio = [
        -0.5 * (x - a) ** 2 / ins**2 + 0.5 * (x - b) ** 2 / out**2 + np.log(out / ins)
        for x, a, b in [(4, 4, 2), (1, 4, 1), (2, -6, 0)]
    ]
    assert ATTACKS["lira-online"](observations) == pytest.approx(ratio)
    unlike = np.array([2, 0, 2]) / (out * np.sqrt([1 + 1 / 2, 1 + 1 / 3, 2]))
    assert ATTACKS["unlike-non-member"](observations) == pytest.approx(unlike)
    assert ATTACKS["unlike-outputs"](observations) == pytest.approx(unlike / np.sqrt(0.95), rel=1e-6)
    assert population_loss(observations).tolist() == [4, 1, 2]
    before = np.array([[1.0, 0], [1, 0], [0, -2]])
    assert ATTACKS["two-version"](few(before=before)) == pytest.approx(np.array([3, 0, 4]) / out)
    alone = few(before=before, shadows=np.zeros((0, 3, 2)), inside=np.zeros((0, 3), dtype=bool))
    assert ATTACKS["two-version"](alone).tolist() == [3, 0, 4]
    assert label_only(few(nearby=np.array([[0, 0], [1, 0], [0, 0]]))).tolist() == [1, 0.5, 0]


def test_each_record_has_its_own_spread_where_shadows_are_many():
    rng = np.random.default_rng(6)
    wide = np.array([1.0, 10.0])
    shadows = np.stack([rng.normal(size=(40, 2)) * wide, np.zeros((40, 2))], axis=-1)
    observations = Observations(
        np.array([0, 0]), np.array([[5.0, 0], [5.0, 0]]), shadows, np.zeros((40, 2), dtype=bool)
    )
    many = ATTACKS["lira-offline"](observations)
    assert many[0] > 3
    assert many[1] < 1
    less = replace(observations, shadows=shadows[:29], inside=observations.inside[:29])
    one, other = ATTACKS["lira-offline"](less)
    assert one == pytest.approx(other, abs=0.6)


def test_moderated_variances_are_a_compromise():
    """Variances drawn as the model says, prior of 8 degrees of freedom about 2: nearer than own ones and than one for all."""
    rng = np.random.default_rng(8)
    truth, freedom = 8 * 2.0 / rng.chisquare(8, 4000), np.full(4000, 5.0)
    squares = truth * rng.chisquare(5, 4000)
    found = moderated_variances(squares, freedom)
    errors = [
        np.mean(np.log(one / truth) ** 2)
        for one in (found, squares / freedom, np.full(4000, squares.sum() / freedom.sum()))
    ]
    assert errors[0] < 0.8 * min(errors[1:])
    slope, start = np.polyfit(squares, found, 1)  # found = (prior * scale + squares) / (prior + freedom)
    assert 1 / slope - 5 == pytest.approx(8, rel=0.15)
    assert start / slope / (1 / slope - 5) == pytest.approx(2, rel=0.1)


@pytest.mark.parametrize(
    ("name", "squares"),
    [("few records", np.arange(1.0, 10.0)), ("records alike", np.full(30, 3.0)), ("constant", np.zeros(30))],
)
def test_moderated_variances_are_one_for_all_where_nothing_says_otherwise(name, squares):
    found = moderated_variances(squares, np.full(len(squares), 4.0))
    assert found == pytest.approx(np.full(len(squares), squares.mean() / 4))


def test_very_different_variances_stay_each_its_own():
    squares = np.geomspace(1e-40, 1e40, 30)
    found = moderated_variances(squares, np.full(30, 4.0))
    assert np.isfinite(found).all()
    assert found[-5:] == pytest.approx(squares[-5:] / 4, rel=0.05)


def test_constant_margins_give_numbers():
    """Shadows that all answer the same: any difference is many spreads, none is zero; nothing is infinite."""
    observations = few(shadows=np.zeros((4, 3, 2)), before=np.zeros((3, 2)))
    for name in ("lira-online", "lira-offline", "two-version", "unlike-non-member", "unlike-outputs"):
        scores = ATTACKS[name](observations)
        assert np.isfinite(scores).all()
    assert ATTACKS["lira-offline"](observations) == pytest.approx([4e6, 1e6, 2e6])
    same = replace(observations, target=np.zeros((3, 2)))
    assert ATTACKS["unlike-outputs"](same).tolist() == [0, 0, 0]


def test_extreme_logits_give_numbers():
    observations = planted()
    names = ("target", "shadows", "before", "population", "population_shadows")
    huge = replace(observations, **{one: getattr(observations, one) * 1e4 for one in names})
    for attack in ATTACKS.values():
        assert np.isfinite(attack(huge)).all()


def test_population_records_are_beaten_by_a_factor():
    """Target doubles the record's odds against its mean, population ratios are 1: beaten at gamma 2 only if P doubles."""
    labels = np.zeros(1, dtype=np.int64)
    half = np.zeros((1, 2))
    observations = Observations(
        labels,
        np.array([[np.log(3.0), 0]]),
        np.zeros((2, 1, 2)),
        np.array([[True], [False]]),
        population=half,
        population_labels=labels,
        population_shadows=np.zeros((2, 1, 2)),
    )
    # online: p = 3/4 against 1/2; the population's 1/2 against (1 + a) / 4 + (1 - a) / 2 with a = 1: ratios 1.5 and 1
    assert [rmia_online(observations, gamma).tolist() for gamma in (1.0, 1.49, 1.51)] == [[1], [1], [0]]
    # offline with a = 0: 3/4 and 1/2, both against 1/4 + 1/2
    assert [rmia_offline(observations, gamma, 0.0).tolist() for gamma in (1.49, 1.51)] == [[1], [0]]


ONE = {"shadows": np.zeros((1, 3, 2)), "inside": np.zeros((1, 3), dtype=bool)}
NONE = {"shadows": np.zeros((0, 3, 2)), "inside": np.zeros((0, 3), dtype=bool)}
POPULATED = {"population": np.zeros((2, 2)), "population_labels": np.zeros(2, dtype=np.int64)}
BAD = [
    ("labels of another length", "lira-online", {"labels": np.array([0, 1])}, "labels: expected shape [3], found [2]"),
    ("a label that the network does not have", "lira-online", {"labels": np.array([0, 1, 2])}, "labels: expected labels in [0, 2), found 0 to 2"),
    ("labels that are not whole", "lira-online", {"labels": np.zeros(3)}, "labels: expected whole numbers, found float64"),
    ("one label", "lira-online", {"target": np.zeros((3, 1))}, "target: expected at least one record and two labels, found shape [3, 1]"),
    ("a logit that is not a number", "lira-online", {"target": np.array([[1, 0], [np.nan, 0], [0, 0]])}, "target: expected finite numbers, found nan at [1, 0]"),
    ("an infinite logit of a shadow", "lira-online", {"shadows": np.full((4, 3, 2), np.inf)}, "shadows: expected finite numbers, found inf at [0, 0, 0]"),
    ("memberships as numbers", "lira-online", {"inside": np.zeros((4, 3))}, "inside: expected truth values, found float64"),
    ("memberships of another shape", "lira-online", {"inside": np.zeros((4, 2), dtype=bool)}, "inside: expected shape [4, 3], found [4, 2]"),
    ("outputs before of other records", "two-version", {"before": np.zeros((2, 2))}, "before: expected shape [3, 2], found [2, 2]"),
    ("no outputs before", "two-version", {}, "before: expected logits of the network before unlearning, found none"),
    ("no answers nearby", "label-only", {}, "nearby: expected the target's answers"),
    ("no probes", "label-only", {"nearby": np.zeros((3, 0), dtype=np.int64)}, "nearby: expected the target's answers"),
    ("an answer that is no label", "label-only", {"nearby": np.full((3, 1), 7)}, "nearby: expected labels in [0, 2), found 7 to 7"),
    ("no population", "rmia-offline", {}, "population: expected logits of records that are in no training set"),
    ("population without its labels", "rmia-offline", {"population": np.zeros((2, 2))}, "population: expected population, population_labels and population_shadows together"),
    ("population of other shadows", "rmia-online", {**POPULATED, "population_shadows": np.zeros((3, 2, 2))}, "population_shadows: expected shape [4, 2, 2], found [3, 2, 2]"),
    ("every shadow saw a record", "lira-offline", {"inside": np.array([[1, 0, 0]] * 4, dtype=bool)}, "inside: expected a shadow outside for every record, found none for records 0"),
    ("no shadow saw a record", "lira-online", {"inside": np.array([[1, 0, 0], [0, 0, 1]] * 2, dtype=bool)}, "inside: expected a shadow inside for every record, found none for records 1"),
    ("one shadow", "unlike-non-member", ONE, "shadows: expected at least two outside for one record at least, found one for each of 3 records"),
    ("one shadow, all outputs", "unlike-outputs", ONE, "shadows: expected at least two outside"),
    ("no shadows", "lira-offline", NONE, "inside: expected a shadow outside for every record, found none for records 0, 1, 2"),
    ("no shadows, relative", "rmia-offline", {**NONE, **POPULATED, "population_shadows": np.zeros((0, 2, 2))}, "inside: expected a shadow outside for every record, found none for records 0, 1, 2"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "changes", "text"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_what_is_refused(name, changes, text):
    with pytest.raises(AttackInputError) as refused:
        ATTACKS[name](few(**changes))
    assert str(refused.value).startswith(text)


@pytest.mark.parametrize(("attack", "options", "text"), [
    (rmia_offline, {"gamma": 0.0}, "gamma: expected a factor above 0, found 0.0"),
    (rmia_online, {"gamma": float("nan")}, "gamma: expected a factor above 0, found nan"),
    (rmia_offline, {"a": 1.5}, "a: expected a slope in [0, 1], found 1.5"),
])  # fmt: skip
def test_what_relative_attacks_refuse(attack, options, text):
    with pytest.raises(AttackInputError) as refused:
        attack(planted(), **options)
    assert str(refused.value) == text
