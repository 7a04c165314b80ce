"""Membership inference against a patched network, beside the base, a genuine retrain, and any other network.

The question is not whether records can be recognised as members of a network that was trained on them, but whether
the forget set can still be told from records that were never seen, once the network is patched; a network that was
trained without the forget set says what an attack finds where there is nothing to find. Everything here is measured
on these records, and holds for these attacks only.

Source: Carlini et al., arXiv 2112.03570; DeLong, DeLong and Clarke-Pearson, Biometrics 44 (1988), for the difference of
two areas over the same records.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import norm, rankdata

from prune_verify.measure.attack_scores import ATTACKS, AttackInputError, Observations
from prune_verify.measure.membership_sets import Sets
from prune_verify.measure.roc import Estimate, auc, tpr_at

__all__ = ["RATES", "Attacked", "Membership", "Shadows", "Target", "attack_all", "auc_difference", "probes_near"]

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Labels = npt.NDArray[np.int64]
RATES = (0.01, 0.001)
TWO_SIDED = "unlike-non-member"
OF_TWO_VERSIONS = "two-version"
_SCALES = (0.25, 0.5, 1.0, 2.0)
_DRAWS = 6


@dataclass(frozen=True, eq=False)
class Shadows:
    """What shadow networks answer.

    Args:
        logits: float32 [shadows, queries, labels], of scored records and then of the population.
        inside: bool [shadows, scored records].

    """

    logits: Floats
    inside: Bools


@dataclass(frozen=True, eq=False)
class Target:
    """A network under attack.

    Args:
        name: of it, for tables.
        logits: rows float32 [rows, *input_shape] to float32 [rows, labels].
        control: whether it was trained without the forget set by the very recipe, so that attacks must find nothing.

    """

    name: str
    logits: Callable[[Floats], Floats]
    control: bool = False


@dataclass(frozen=True, eq=False)
class Attacked:
    """One attack on one network.

    Args:
        scores: float64 [scored records], forget set first, higher for "member".
        area: under the ROC curve, the forget set against records that were never seen.
        rates: true-positive rates at each of ``RATES``; None where there are too few records for a rate.

    """

    scores: Doubles
    area: Estimate
    rates: tuple[Estimate | None, ...]


@dataclass(frozen=True, eq=False)
class Membership:
    """All attacks on all networks.

    Args:
        sets: the records.
        targets: names of the networks in order.
        controls: those where attacks of one version must find nothing.
        found: by network and attack.
        refused: by attack, why it could not be made on some network.
        logits: by network, float32 [queries, labels].

    """

    sets: Sets
    targets: tuple[str, ...]
    controls: tuple[str, ...]
    found: Mapping[str, Mapping[str, Attacked]]
    refused: Mapping[str, str]
    logits: Mapping[str, Floats]

    @property
    def attacks(self) -> tuple[str, ...]:
        """Names of the attacks that were made on some network."""
        return tuple(name for name in ATTACKS if any(name in one for one in self.found.values()))

    def off_chance(self, control: str) -> tuple[str, ...]:
        """Attacks whose interval on a control leaves out 0.5.

        The attack of two versions is left out: the base was trained on the forget set, and its difference to any later
        version shows that, also to a genuine retrain.

        """
        return tuple(
            name
            for name, one in self.found[control].items()
            if name != OF_TWO_VERSIONS and not one.area.low <= 0.5 <= one.area.high  # noqa: PLR2004 - chance
        )

    def compared(self, control: str, attack: str = TWO_SIDED) -> bool:
        """Whether the attack was made on the patched network and on a control, so that there is a difference."""
        return attack in self.found["patched"] and attack in self.found[control]

    def difference(self, first: str, second: str, attack: str = TWO_SIDED) -> Estimate:
        """By how much an attack's area on the first network is above that on the second."""
        return auc_difference(
            self.found[first][attack].scores, self.found[second][attack].scores, int(self.sets.member.sum())
        )


def _placements(scores: Doubles, members: int) -> tuple[Doubles, Doubles]:
    """Share of non-members below each member, and of members above each non-member; ties count half."""
    inside, outside = scores[:members], scores[members:]
    ranks = rankdata(scores)
    below = (ranks[:members] - rankdata(inside)) / len(outside)
    above = 1.0 - (ranks[members:] - rankdata(outside)) / len(inside)
    return below, above


def auc_difference(first: Doubles, second: Doubles, members: int, confidence: float = 0.95) -> Estimate:
    """Area of the first scores less that of the second, over the same records, with DeLong's paired interval.

    Args:
        first: float64 [records], members first.
        second: the same.
        members: number of members, two or more, as of the others.
        confidence: of the interval.

    Source: DeLong et al. (1988), the covariance of correlated areas.

    """
    pairs = zip(_placements(first, members), _placements(second, members), strict=True)
    inside, outside = (a - b for a, b in pairs)
    value = float(inside.mean())
    error = np.sqrt(inside.var(ddof=1) / len(inside) + outside.var(ddof=1) / len(outside))
    half = float(norm.isf((1.0 - confidence) / 2.0) * error)
    return Estimate(value, max(value - half, -1.0), min(value + half, 1.0))


def probes_near(logits: Callable[[Floats], Floats], rows: Floats, scale: float, seed: int) -> Labels:
    """What a network answers on a record and near it: int64 [records, probes], the record itself first.

    Near it is normal noise of 0.25, 0.5, 1 and 2 times ``scale``, six draws each, the same for every network.

    Args:
        logits: of the network.
        rows: float32 [records, *input_shape].
        scale: standard deviation of the inputs, in input units.
        seed: of the noise.

    """
    generator = np.random.default_rng((seed, 2))
    answers = [logits(rows).argmax(axis=1)]
    for level in _SCALES:
        for _ in range(_DRAWS):
            noise = generator.standard_normal(rows.shape, dtype=np.float32) * np.float32(level * scale)
            answers.append(logits(rows + noise).argmax(axis=1))
    return np.stack(answers, axis=1).astype(np.int64)


def attack_all(
    sets: Sets,
    shadows: Shadows,
    base: Target,
    targets: tuple[Target, ...],
    *,
    seed: int = 0,
    progress: Callable[[str, int, int], None] = lambda _name, _done, _total: None,
) -> Membership:
    """Make every attack on the base and on each target.

    Args:
        sets: the records.
        shadows: what shadow networks answer on them.
        base: the network before unlearning.
        targets: networks after it, controls among them.
        seed: of the probes near records.
        progress: called with the number of networks that were attacked.

    Raises:
        AttackInputError: a network answers what is no number.

    """
    count, labels = sets.scored, sets.labels
    wide = shadows.logits.astype(np.float64)
    scale, before = float(sets.retain.x.std()), base.logits(sets.queries).astype(np.float64)
    found: dict[str, dict[str, Attacked]] = {}
    refused: dict[str, str] = {}
    logits: dict[str, Floats] = {}
    every = (base, *targets)
    for place, target in enumerate(every):
        progress("attacks", place, len(every))
        answers = target.logits(sets.queries)
        logits[target.name] = answers
        observed = Observations(
            labels=labels,
            target=answers[:count].astype(np.float64),
            shadows=wide[:, :count],
            inside=shadows.inside,
            before=None if target is base else before[:count],
            nearby=probes_near(target.logits, sets.queries[:count], scale, seed),
            population=answers[count:].astype(np.float64),
            population_labels=sets.population.y,
            population_shadows=wide[:, count:],
        )
        found[target.name] = {}
        for name, attack in ATTACKS.items():
            try:
                found[target.name][name] = _attacked(attack(observed), sets)
            except AttackInputError as error:
                if target is not base or name != OF_TWO_VERSIONS:  # the base is the version before
                    refused[name] = str(error)
    progress("attacks", len(every), len(every))
    controls = tuple(target.name for target in targets if target.control)
    return Membership(sets, tuple(target.name for target in every), controls, found, refused, logits)


def _attacked(scores: Doubles, sets: Sets) -> Attacked:
    inside, outside = scores[sets.member], scores[~sets.member]
    return Attacked(scores, auc(inside, outside), tuple(tpr_at(inside, outside, rate) for rate in RATES))
