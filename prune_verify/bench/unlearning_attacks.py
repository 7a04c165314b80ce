"""What attacks find in one network of ``bench unlearning``: scores of forgotten and of judged records, and their cells.

A forgotten record is the attack's "member", a judged one its "non-member". After perfect unlearning both are alike: a
one-sided attack (LiRA, RMIA) finds those that are still remembered, a two-sided one those that are forgotten too well.

Source: Carlini et al., arXiv 2112.03570 (LiRA); THREATS T4 (both directions).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from prune_verify.bench.unlearning_sizes import Labels, Study
from prune_verify.measure.attack_scores import ATTACKS, Observations
from prune_verify.measure.roc import Estimate, auc, tpr_at
from prune_verify.repair.redirect import label_margins

__all__ = ["LIRA", "RATES", "UNLIKE", "Attacked", "Attacker", "Shadows", "interval_text", "mean_auc"]

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
LIRA, UNLIKE = "lira-online", "unlike-non-member"
RATES = (0.001, 0.01)
_NAMES = {
    LIRA: "LiRA",
    UNLIKE: "unlike a non-member",
    "unlike-outputs": "unlike, all logits",
    "rmia-online": "RMIA",
    "two-version": "two versions",
}
_RATED = (LIRA, UNLIKE)


@dataclass(frozen=True, eq=False)
class Shadows:
    """Networks that an attacker, or the owner, trained on halves of the pool.

    Args:
        logits: float32 [networks, rows, labels], on all rows of the study.
        inside: bool [networks, rows], what each was trained on.

    """

    logits: Floats
    inside: Bools

    def out_margins(self, study: Study) -> Doubles:
        """The margin of each forget record's label, NaN where a network saw it: float64 [networks, forget]."""
        rows = study.part("forget")
        return np.where(self.inside[:, rows], np.nan, label_margins(self.logits[:, rows], study.y[rows]))


@dataclass(frozen=True, eq=False)
class Attacked:
    """Scores of one network by attack.

    Args:
        members: float64 [forgotten] by attack.
        others: float64 [judged] by attack.

    """

    members: Mapping[str, Doubles]
    others: Mapping[str, Doubles]

    def auc(self, attack: str) -> Estimate:
        """How often an attack scores a forgotten record above a judged one."""
        return auc(self.members[attack], self.others[attack])

    def cells(self) -> dict[str, object]:
        """Columns of the table."""
        found: dict[str, object] = {}
        for attack, name in _NAMES.items():
            if attack not in self.members:
                found[f"{name} AUC"] = "n/a"
                continue
            if attack in _RATED:
                for rate in RATES:
                    known = tpr_at(self.members[attack], self.others[attack], rate)
                    found[f"{name} TPR at {100 * rate:g} % FPR"] = interval_text(known)
            found[f"{name} AUC"] = interval_text(self.auc(attack))
        return found


@dataclass(frozen=True, eq=False)
class Attacker:
    """One attacker with shadow networks of its own.

    Args:
        study: the records.
        shadows: never the owner's.

    """

    study: Study
    shadows: Shadows

    def attack(
        self, target: Floats, members: Labels, others: Labels, *, before: Floats | None = None, only: Sequence[str] = ()
    ) -> Attacked:
        """Every attack on one network.

        Args:
            target: float32 [rows, labels]: its logits on all rows of the study.
            members: indices of rows that were to be forgotten.
            others: indices of rows that the network never saw.
            before: logits of the network before unlearning; without them no comparison of two versions.
            only: names of attacks; all by default.

        """
        study, rows = self.study, np.concatenate([members, others])
        wide = study.part("population")
        observed = Observations(
            labels=study.y[rows],
            target=target[rows].astype(np.float64),
            shadows=self.shadows.logits[:, rows].astype(np.float64),
            inside=self.shadows.inside[:, rows],
            before=None if before is None else before[rows].astype(np.float64),
            population=target[wide].astype(np.float64),
            population_labels=study.y[wide],
            population_shadows=self.shadows.logits[:, wide].astype(np.float64),
        )
        names = [name for name in (only or _NAMES) if name != "two-version" or before is not None]
        scores = {name: ATTACKS[name](observed) for name in names}
        count = len(members)
        return Attacked({n: s[:count] for n, s in scores.items()}, {n: s[count:] for n, s in scores.items()})


def mean_auc(found: Sequence[Attacked], attack: str) -> Estimate:
    """The mean over networks found, each under this attack, that are attacked about the same records.

    Records are what was sampled, and the networks share them: the interval is as wide as that of one network on
    average, and not narrower by the root of their number.
    """
    each = [one.auc(attack) for one in found]
    value = float(np.mean([one.value for one in each]))
    below = float(np.mean([one.value - one.low for one in each]))
    above = float(np.mean([one.high - one.value for one in each]))
    return Estimate(value, max(0.0, value - below), min(1.0, value + above))


def interval_text(found: Estimate | None) -> str:
    """A value that was found with its interval, or n/a."""
    return "n/a" if found is None else f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"
