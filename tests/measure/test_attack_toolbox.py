"""The attacks here beside those of the Adversarial Robustness Toolbox, on networks trained on digits.

A fifth of the labels is wrong, so that networks have something to remember. The same answers where the toolbox has the
same attack; where its attack is another one for the same purpose, areas within each other's intervals, or ours above.
"""

import warnings
from dataclasses import dataclass, replace

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("art", reason="adversarial-robustness-toolbox is not installed")

import torch
from art.attacks.inference.membership_inference import (
    LabelOnlyDecisionBoundary,
    LabelOnlyGapAttack,
    MembershipInferenceBlackBox,
    MembershipInferenceBlackBoxRuleBased,
    ShadowModels,
)
from art.estimators.classification import PyTorchClassifier, SklearnClassifier
from scipy.stats import spearmanr
from sklearn.datasets import load_digits
from sklearn.neural_network import MLPClassifier

from prune_verify.measure.attack_scores import ATTACKS, Observations, label_only
from prune_verify.measure.roc import auc

pytestmark = pytest.mark.prover
POOL, POPULATION, SHADOWS, LABELS = 700, 400, 12, 10


def make():
    return MLPClassifier((24,), alpha=0.0, learning_rate_init=0.02, max_iter=60, tol=0.0, random_state=0)


def fitted(estimator, x, y, seed):
    estimator.set_params(random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # trained for so many epochs on purpose
        return estimator.fit(x, y)


def as_torch(network):
    """The same network in torch, answering logits."""
    layers = []
    for weight, bias in zip(network.coefs_, network.intercepts_, strict=True):
        layer = torch.nn.Linear(*weight.shape)
        layer.weight.data, layer.bias.data = torch.tensor(weight.T).float(), torch.tensor(bias).float()
        layers += [layer, torch.nn.ReLU()]
    return torch.nn.Sequential(*layers[:-1])


def logits(network, x):
    hidden = np.maximum(x @ network.coefs_[0] + network.intercepts_[0], 0)
    return hidden @ network.coefs_[1] + network.intercepts_[1]


@dataclass
class Trained:
    pool: np.ndarray
    labels: np.ndarray
    members: np.ndarray
    target: MLPClassifier
    art: PyTorchClassifier
    observations: Observations
    shadow_data: tuple

    def area(self, scores):
        scores = np.asarray(scores, dtype=float).ravel()
        return auc(scores[self.members], scores[~self.members])


@pytest.fixture(scope="module")
def trained():
    """A target trained on half of the pool, and the toolbox's shadow models, each trained on another half."""
    digits = load_digits()
    rng = np.random.default_rng(0)
    order = rng.permutation(len(digits.data))
    x, y = digits.data[order] / 16, digits.target[order]
    y = np.where(rng.random(len(y)) < 0.2, rng.integers(0, LABELS, len(y)), y)
    pool, labels, population = x[:POOL], y[:POOL], slice(POOL, POOL + POPULATION)
    members = np.zeros(POOL, dtype=bool)
    members[rng.permutation(POOL)[: POOL // 2]] = True
    target = fitted(make(), pool[members], labels[members], 1)
    models = ShadowModels(SklearnClassifier(target), num_shadow_models=SHADOWS, random_state=2)
    for seed, one in enumerate(models.get_shadow_models()):
        one.model.set_params(random_state=10 + seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shadow_data = models.generate_shadow_dataset(pool, np.eye(LABELS)[labels])
    networks = [one.model for one in models.get_shadow_models()]
    index = {row.tobytes(): i for i, row in enumerate(pool)}
    inside = np.zeros((SHADOWS, POOL), dtype=bool)
    for s, (rows, _) in enumerate(models.get_shadow_models_train_sets()):
        inside[s, [index[row.tobytes()] for row in rows]] = True
    assert inside.sum() == SHADOWS * POOL // 2
    kept = inside.any(axis=0) & ~inside.all(axis=0)  # the toolbox gives one record of the pool to no shadow
    pool, labels, members, inside = pool[kept], labels[kept], members[kept], inside[:, kept]
    observations = Observations(
        labels=labels,
        target=logits(target, pool),
        shadows=np.stack([logits(one, pool) for one in networks]),
        inside=inside,
        population=logits(target, x[population]),
        population_labels=y[population],
        population_shadows=np.stack([logits(one, x[population]) for one in networks]),
    )
    art = PyTorchClassifier(as_torch(target), torch.nn.CrossEntropyLoss(), (64,), LABELS, device_type="cpu")
    return Trained(pool.astype(np.float32), labels, members, target, art, observations, shadow_data)


def test_the_gap_attack_is_label_only_without_perturbations(trained):
    answers = trained.target.predict(trained.pool)[:, None]
    found = label_only(
        Observations(
            trained.labels,
            trained.observations.target,
            trained.observations.shadows,
            trained.observations.inside,
            nearby=answers,
        )
    )
    for attack in (LabelOnlyGapAttack, MembershipInferenceBlackBoxRuleBased):
        theirs = attack(trained.art).infer(trained.pool, trained.labels)
        assert found.tolist() == theirs.tolist()
    assert trained.area(found).low > 0.55


def test_a_model_of_losses_ranks_as_losses_do(trained):
    """The toolbox fits a regression on losses and labels, on a half of the records; both attack the other half."""
    attack = MembershipInferenceBlackBox(trained.art, input_type="loss", attack_model_type="lr")
    half = np.arange(len(trained.pool)) % 2 == 0
    ours = ATTACKS["population-loss"](trained.observations)
    known, unknown = half & trained.members, half & ~trained.members
    attack.fit(trained.pool[known], trained.labels[known], trained.pool[unknown], trained.labels[unknown])
    theirs = attack.infer(trained.pool, trained.labels, probabilities=True).ravel()
    areas = [auc(scores[~half & trained.members], scores[~half & ~trained.members]) for scores in (ours, theirs)]
    assert areas[1].low <= areas[0].value <= areas[1].high
    assert areas[0].low <= areas[1].value <= areas[0].high
    losses = trained.art.compute_loss(trained.pool, trained.labels)
    sure = losses > 1e-4  # below, losses in binary32 tie
    assert spearmanr(losses[sure], ours[sure]).statistic == pytest.approx(-1)


def test_likelihoods_of_the_same_shadow_models_beat_a_model_of_their_predictions(trained):
    attack = MembershipInferenceBlackBox(trained.art, attack_model_type="rf")
    (_, label, prediction), (_, other_label, other_prediction) = trained.shadow_data
    attack.fit(None, label, None, other_label, pred=prediction, test_pred=other_prediction)
    probabilities = trained.target.predict_proba(trained.pool)
    theirs = trained.area(attack.infer(None, trained.labels, pred=probabilities, probabilities=True))
    assert theirs.low > 0.5
    for name in ("lira-online", "lira-offline", "rmia-online", "rmia-offline"):
        ours = trained.area(ATTACKS[name](trained.observations))
        assert ours.value > theirs.low
    assert trained.area(ATTACKS["lira-online"](trained.observations)).value > theirs.value


def test_networks_remember_their_records_and_each_is_attacked_by_the_others(trained):
    for name in ("lira-online", "rmia-online", "unlike-non-member"):
        assert trained.area(ATTACKS[name](trained.observations)).low > 0.5
    one = trained.observations
    other = Observations(one.labels, one.shadows[0], one.shadows[1:], one.inside[1:])
    scores = ATTACKS["lira-online"](other)
    inside = one.inside[0]
    assert auc(scores[inside], scores[~inside]).low > 0.5  # a shadow attacked by the others


def test_answers_to_noise_say_how_far_the_boundary_is(trained):
    """The toolbox searches the nearest other answer; here the share of noisy queries that keep the true label."""
    rng = np.random.default_rng(3)
    chosen = np.concatenate(
        [rng.permutation(np.flatnonzero(side))[:30] for side in (trained.members, ~trained.members)]
    )
    x, labels, members = trained.pool[chosen], trained.labels[chosen], trained.members[chosen]
    attack = LabelOnlyDecisionBoundary(SklearnClassifier(trained.target), distance_threshold_tau=1e-9)
    np.random.seed(4)  # noqa: NPY002 - the toolbox draws from the global generator
    theirs = attack.infer(
        x, labels, probabilities=True, norm=2, max_iter=4, max_eval=200, init_eval=20, init_size=50, verbose=False
    )[:, 1]
    noisy = x[:, None] + rng.normal(0, 0.25, (len(x), 200, 64))
    answers = trained.target.predict(noisy.reshape(-1, 64)).reshape(len(x), 200)
    ours = label_only(
        Observations(
            labels,
            logits(trained.target, x),
            np.zeros((0, len(x), LABELS)),
            np.zeros((0, len(x)), dtype=bool),
            nearby=answers,
        )
    )
    assert spearmanr(theirs, ours).statistic > 0.6  # their search draws without a seed
    areas = [auc(scores[members], scores[~members]) for scores in (ours, theirs)]
    assert areas[0].low <= areas[1].value <= areas[0].high
    assert areas[1].low <= areas[0].value <= areas[1].high


def test_forced_errors_look_private_from_one_side_only(trained):
    """Members' answers replaced by the runner-up: better than private for one-sided attacks, and marked for two-sided ones."""
    one = trained.observations
    target, forgotten = one.target.copy(), np.zeros(len(one.labels), dtype=bool)
    for i in np.flatnonzero(trained.members & (one.target.argmax(axis=1) == one.labels)):
        target[i, one.labels[i]] = np.sort(target[i])[-2] - 0.5
        forgotten[i] = True
    patched = replace(one, target=target)

    def area(name):
        scores = ATTACKS[name](patched)
        return auc(scores[forgotten], scores[~trained.members])

    for name in ("lira-offline", "rmia-offline", "population-loss"):
        assert area(name).high < 0.4
    assert area("unlike-non-member").low > 0.65
