"""What a learned patch says about its records: the likeliest inputs that the base knows and the patched network not.

The attacker has both networks. A record of a label was answered with it by the base and is not by the patched network,
so the search is for the likeliest input of the label with these two answers: from the label's mean, from there along
the normals of the patch's first layer, and from the public records on which the patch acts most.

Source: MATHS 4.3 (privacy of learned patches); model inversion, Fredrikson et al., CCS 2015.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from prune_verify.bounds.bounded import one_thread
from prune_verify.bounds.torch_network import TorchNetwork
from prune_verify.checker.network import Network
from prune_verify.checker.patch import LearnedPatch
from prune_verify.checker.rebuild import build
from prune_verify.measure.population import Population

__all__ = ["PatchSearch"]

Doubles = npt.NDArray[np.float64]
_STEPS = 150
_RATE = 0.1
_WEIGHTS = (1e-1, 1e-2, 1e-3)  # of likelihood against the answers, the first that gives both answers counts
_STARTS = 12  # public records, and normals in each direction
_APART = 1e-2  # root mean square distance below which two ends of the search are the same guess


class PatchSearch:
    """Looks for the records of a learned patch.

    Args:
        base: the base network.
        patch: the patch.
        population: the public sample.

    """

    def __init__(self, base: Network, patch: LearnedPatch, population: Population) -> None:
        self._shape, self._normals = base.input_shape, torch.from_numpy(patch.layers[0][0].astype(np.float64))
        self._base = TorchNetwork(base, torch.float64)
        self._patched = TorchNetwork(build(base, patch), torch.float64)
        self._population = population

    def _margins(self, x: Tensor, label: int) -> tuple[Tensor, Tensor]:
        """By how much each network prefers the label: base and patched, [rows] each."""
        found = []
        for network in (self._base, self._patched):
            logits = network(x.reshape(len(x), *self._shape))
            others = torch.cat([logits[:, :label], logits[:, label + 1 :]], dim=1)
            found.append(logits[:, label] - others.amax(dim=1))
        return found[0], found[1]

    def _starts(self, label: int, mean: Tensor, directions: Tensor) -> Tensor:
        """Where the search begins, in units of the label's distribution: [starts, n]."""
        own = torch.from_numpy(self._population.of_label(label))
        before, after = self._margins(own, label)
        near = own[(before - after).argsort(descending=True)[:_STARTS]]
        along = self._normals @ directions
        sizes = along.square().sum(dim=1).sqrt()
        chosen = sizes.argsort(descending=True)[:_STARTS]
        unit = along[chosen] / sizes[chosen, None].clamp_min(1e-12) * float(mean.numel()) ** 0.5 / 2
        lengths = directions.square().sum(dim=0).clamp_min(1e-12)
        return torch.cat([torch.zeros_like(mean)[None], unit, -unit, (near - mean) @ directions / lengths])

    def guesses(self, label: int, count: int) -> Doubles:
        """Guesses at the records of one label for which the patch was made.

        Args:
            label: of the records.
            count: how many guesses.

        Returns:
            float64 [count, n], in the domain, the likeliest first; where the search ends in fewer places, the last one
            again; the label's mean where no input with both answers was found.

        """
        prior = self._population.prior(label)
        mean, directions = torch.from_numpy(prior.mean), torch.from_numpy(prior.directions)
        with one_thread():
            with torch.no_grad():
                starts = self._starts(label, mean, directions)
                own = torch.from_numpy(self._population.of_label(label))
                scale = self._margins(own, label)[0].abs().mean().clamp_min(1e-6)
            ends, likely = torch.empty((0, mean.numel()), dtype=torch.float64), torch.empty(0, dtype=torch.float64)
            for weight in _WEIGHTS:
                x, z = self._climbed(label, starts, mean, directions, scale, weight)
                with torch.no_grad():
                    before, after = self._margins(x, label)
                done = (before > 0) & (after < 0)
                ends, likely = torch.cat([ends, x[done]]), torch.cat([likely, z[done].square().sum(dim=1)])
                starts = starts[~done]
                if not len(starts):
                    break
        found: list[Doubles] = []
        for place in likely.argsort().tolist():
            guess = ends[place].numpy()
            if all(np.sqrt(np.square(guess - other).mean()) > _APART for other in found):
                found.append(guess)
        found = found[:count] or [prior.mean]
        return np.stack(found + [found[-1]] * (count - len(found)))

    def _climbed(
        self, label: int, starts: Tensor, mean: Tensor, directions: Tensor, scale: Tensor, weight: float
    ) -> tuple[Tensor, Tensor]:
        """Where the search ends: inputs [starts, n] and the same in units of the label's distribution."""
        first, last = self._population.domain
        z = starts.clone().requires_grad_()
        optimiser = torch.optim.Adam([z], lr=_RATE)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, _STEPS)
        for _ in range(_STEPS):
            before, after = self._margins((mean + z @ directions.T).clamp(first, last), label)
            missed = (after / scale + 0.05).relu() + (0.05 - before / scale).relu()
            loss = missed.sum() + weight * z.square().mean(dim=1).sum()
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call] # torch has no types here
            optimiser.step()
            schedule.step()
        ended = z.detach()
        return (mean + ended @ directions.T).clamp(first, last), ended
