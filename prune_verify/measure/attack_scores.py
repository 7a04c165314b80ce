"""Every attack of membership inference by name: observations in, a score for each record out, higher for "member".

Source: the papers named in each function, in :mod:`prune_verify.measure.attack_likelihood` and
:mod:`prune_verify.measure.attack_relative`; Yeom, Giacomelli, Fredrikson and Jha, Privacy Risk in Machine Learning (CSF
2018, arXiv 1709.01604); Ye, Maddi, Murakonda, Bindschaedler and Shokri, Enhanced Membership Inference Attacks against
Machine Learning Models (CCS 2022, arXiv 2111.09679); Choquette-Choo, Tramer, Carlini and Papernot, Label-Only
Membership Inference Attacks (ICML 2021, arXiv 2007.14321).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from prune_verify.measure.attack_input import AttackInputError, Doubles, Observations, scaled_margins
from prune_verify.measure.attack_likelihood import (
    lira_offline,
    lira_online,
    two_version,
    unlike_non_member,
    unlike_outputs,
)
from prune_verify.measure.attack_relative import rmia_offline, rmia_online

__all__ = ["ATTACKS", "AttackInputError", "Observations", "label_only", "population_loss"]


def population_loss(observations: Observations) -> Doubles:
    """A record whose loss under the target is low is called a member; no shadow networks.

    The score is the margin, of which the negative loss is an increasing function that saturates. Population records
    would choose the threshold for a false-positive rate (Ye et al.), which does not change the order of the scores.

    Args:
        observations: any.

    Returns:
        float64 [records].

    Source: arXiv 1709.01604, adversary 1 with a threshold; arXiv 2111.09679, attack P.

    """
    return scaled_margins(observations.target, observations.labels)


def label_only(observations: Observations) -> Doubles:
    """The share of queries near a record that the target answers with the true label.

    Args:
        observations: with ``nearby``.

    Returns:
        float64 [records], in [0, 1] in steps of 1 / probes.

    Raises:
        AttackInputError: no answers near the records.

    Source: arXiv 2007.14321, section 4 (robustness to augmentations and to noise; random noise as in section 4.3).

    """
    if observations.nearby is None or not observations.nearby.shape[1]:
        text = "nearby: expected the target's answers to at least one query near each record, found none"
        raise AttackInputError(text)
    shares: Doubles = np.mean(observations.nearby == observations.labels[:, None], axis=1, dtype=np.float64)
    return shares


ATTACKS: Mapping[str, Callable[[Observations], Doubles]] = MappingProxyType(
    {
        "lira-online": lira_online,
        "lira-offline": lira_offline,
        "rmia-online": rmia_online,
        "rmia-offline": rmia_offline,
        "population-loss": population_loss,
        "label-only": label_only,
        "two-version": two_version,
        "unlike-non-member": unlike_non_member,
        "unlike-outputs": unlike_outputs,
    }
)
