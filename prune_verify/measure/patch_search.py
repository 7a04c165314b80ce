"""What a learned patch says about its records: the inputs on which it acts most.

The attacker climbs from the label's mean, along the half-spaces of the first layer, and from the public records on
which the patch already acts most, to likely inputs where the label is lowered most against the others.

Source: MATHS 4.3 (privacy of learned patches); model inversion, Fredrikson et al., CCS 2015.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from prune_verify.checker.patch import LearnedPatch
from prune_verify.measure.population import Population

__all__ = ["most_affected"]

Doubles = npt.NDArray[np.float64]
_STEPS = 200
_RATE = 0.05
_LIKELIHOOD = 0.5
_PUBLIC_STARTS = 12
_APART = 1e-2  # root mean square distance below which two ends of the search are the same guess


def _drop(patch: LearnedPatch, x: Tensor, label: int) -> Tensor:
    """By how much the patch lowers the label against the label that it raises most: [rows]."""
    value = x
    for place, (weight, bias) in enumerate(patch.layers):
        value = torch.relu(value) if place else value
        value = value @ torch.from_numpy(weight.astype(np.float64)).T + torch.from_numpy(bias.astype(np.float64))
    others = torch.cat([value[:, :label], value[:, label + 1 :]], dim=1)
    return others.amax(dim=1) - value[:, label]


def most_affected(patch: LearnedPatch, population: Population, label: int, count: int) -> Doubles:
    """Guesses at the records of one label for which a learned patch was made.

    Args:
        patch: the patch.
        population: the public sample.
        label: of the records.
        count: how many guesses.

    Returns:
        float64 [count, n], in the domain, best first; where the search ends in fewer places, the last one again.

    """
    prior, own = population.prior(label), torch.from_numpy(population.of_label(label))
    mean, directions = torch.from_numpy(prior.mean), torch.from_numpy(prior.directions)
    lengths = directions.square().sum(dim=0).clamp_min(1e-12)
    rows = torch.from_numpy(patch.layers[0][0].astype(np.float64))
    along = rows @ directions  # the half-spaces' normals in units of the population
    along = along / along.square().sum(dim=1, keepdim=True).sqrt().clamp_min(1e-12)
    with torch.no_grad():
        affected = _drop(patch, own, label)
        spread = affected.std().clamp_min(1e-6)
        near = own[affected.argsort(descending=True)[:_PUBLIC_STARTS]]
        reach = float(mean.numel()) ** 0.5
        starts = torch.cat(
            [torch.zeros((1, mean.numel()), dtype=torch.float64), reach * along, -reach * along,
             (near - mean) @ directions / lengths]
        )  # fmt: skip
    z = starts.clone().requires_grad_()
    first, last = population.domain
    optimiser = torch.optim.Adam([z], lr=_RATE)
    for _ in range(_STEPS):
        x = (mean + z @ directions.T).clamp(first, last)
        score = _drop(patch, x, label) / spread - _LIKELIHOOD * z.square().mean(dim=1)
        optimiser.zero_grad(set_to_none=True)
        (-score.sum()).backward()  # type: ignore[no-untyped-call] # torch has no types here
        optimiser.step()
    with torch.no_grad():
        x = (mean + z @ directions.T).clamp(first, last)
        score = _drop(patch, x, label) / spread - _LIKELIHOOD * z.square().mean(dim=1)
    found: list[Doubles] = []
    for place in score.argsort(descending=True).tolist():
        guess = x[place].numpy()
        if all(np.sqrt(np.square(guess - other).mean()) > _APART for other in found):
            found.append(guess)
        if len(found) == count:
            break
    return np.stack(found + [found[-1]] * (count - len(found)))
