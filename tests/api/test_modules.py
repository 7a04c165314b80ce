"""Modules become files that answer as they do, or are refused by the name of the layer."""

from __future__ import annotations

import numpy as np
import pytest

from prune_verify.api.errors import RefusalError

torch = pytest.importorskip("torch")
nn = torch.nn
pytestmark = pytest.mark.prover

X = np.random.default_rng(0).random((5, 4), dtype=np.float32)


def exported(module, x=X):
    from prune_verify.api.modules import exported as export

    return export(module, x, "base")


class Doubling(nn.Module):
    """Whose export forgets what its answers depend on: a number that Python keeps."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.calls = nn.Linear(4, 3), 0

    def forward(self, x):
        self.calls += 1
        return self.linear(x) * self.calls


class Failing(nn.Module):
    """Whose layer cannot be exported at all."""

    def forward(self, x):
        return torch.linalg.svdvals(x.reshape(-1, 2, 2)) @ torch.ones(2, 3)


@pytest.mark.parametrize(
    "module",
    [
        pytest.param(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)), id="dense"),
        pytest.param(nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.9), nn.Linear(8, 3)), id="batch norm and dropout"),
        pytest.param(nn.Sequential(nn.Conv2d(1, 3, 2), nn.ReLU(), nn.Flatten()), id="convolution"),
    ],
)  # fmt: skip
def test_modules_in_training_mode_are_exported_as_deployed_and_stay_untouched(module) -> None:
    from prune_verify.api.modules import module_of

    x = X.reshape(5, 1, 2, 2) if isinstance(module[0], nn.Conv2d) else X
    module.train()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    hooks = [(len(part._forward_hooks), len(part._forward_pre_hooks)) for part in module.modules()]
    data = exported(module, x)
    assert all(part.training for part in module.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert hooks == [(len(part._forward_hooks), len(part._forward_pre_hooks)) for part in module.modules()]
    with torch.no_grad():
        found, expected = module_of(data, "base")(torch.tensor(x)), module.eval()(torch.tensor(x))
    assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("module", "text"),
    [
        (nn.Sequential(nn.Linear(4, 3), nn.Tanh()), r"base: layer '1' \(Tanh\): the checker does not load"),
        (nn.ModuleDict({"a": nn.Linear(4, 3)}), r"base: expected a module that answers float32 \[1, 4\]"),
        (
            nn.Sequential(nn.Linear(7, 3)),
            r"expected a module that answers float32 \[1, 4\], got at layer '0' \(Linear\)",
        ),
        (nn.Sequential(nn.Identity(), Failing()), r"base: layer '1' \(Failing\) cannot be exported"),
        (
            Doubling(),
            r"row 0, logit \d: expected .* of the exported file \(what float32 rounds\), got .* of the module",
        ),
        (nn.Linear(4, 3).double(), r"base: weight: expected float32 weights, got torch.float64"),
        (nn.Sequential(nn.Linear(4, 3).half()), r"base: 0.weight: expected float32 weights, got torch.float16"),
    ],
)
def test_what_cannot_be_exported_is_named(module, text) -> None:
    with pytest.raises(RefusalError, match=text) as error:
        exported(module)
    assert error.value.code == "E_MODULE"


def test_a_module_without_records_needs_an_example(tmp_path) -> None:
    import prune_verify.api as pv

    with pytest.raises(RefusalError, match="base: give example="):
        pv.repair(nn.Linear(4, 3), forget_class=1, out=tmp_path)
    patched = pv.repair(nn.Linear(4, 3), forget_class=1, example=torch.tensor(X), out=tmp_path, domain=(0, 1))
    assert patched.family == "class-cap"
    with torch.no_grad():
        assert (patched.module()(torch.tensor(X)).argmax(dim=1) != 1).all()
