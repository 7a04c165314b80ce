"""Statistics on ensembles of networks, unlearned and retrained: can one be told from the other at all?

They need at least 20 networks of each kind, and say more than an attack on one network: U-LiRA
(:mod:`prune_verify.measure.attack_unlearned`), the forgetting score of the NeurIPS 2023 challenge and KLoM
(:mod:`prune_verify.measure.attack_distances`).

Source: named in these modules, arXiv 2403.01218 and 2410.23232 and the challenge's evaluation.
"""

from __future__ import annotations

from prune_verify.measure.attack_distances import ForgettingScore, Klom, forgetting_score, klom
from prune_verify.measure.attack_networks import FEWEST_NETWORKS
from prune_verify.measure.attack_unlearned import ULira, u_lira

__all__ = ["FEWEST_NETWORKS", "ForgettingScore", "Klom", "ULira", "forgetting_score", "klom", "u_lira"]
