"""Every way to forget, by name, on digits: what it hands back is a deployable network that does what its name says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from prune_verify.checker.claim import LabelledRows
from prune_verify.measure.baselines import Rows, retrain
from prune_verify.measure.datasets import digits
from prune_verify.measure.robustness import session_answers
from prune_verify.measure.training import export_onnx, small_mlp
from prune_verify.measure.unlearners import PATCHES, UNLEARNERS, Context, Outcome, UnlearnerError
from prune_verify.measure.unlearning_context import unit_model
from prune_verify.repair.redirect import OutMargins

pytestmark = pytest.mark.prover
DAMAGE = ("amnesiac", "REASSURE", "class-cap")  # what their sources promise keeps no more of a network as small as this
DATA = digits()
FORGET = Rows(DATA.train_x[:6], DATA.train_y[:6])
RETAIN = Rows(DATA.train_x[6:500], DATA.train_y[6:500])
ALL = Rows(DATA.train_x[:500], DATA.train_y[:500])
EPOCHS = 60


def make():
    return small_mlp((64, 32, 32, 10))


NETWORK = retrain(make, ALL, epochs=EPOCHS, seed=0).network
BASE = export_onnx(NETWORK, DATA.train_x)
MARGINS = OutMargins(tuple(np.array([4.0, 5.0, 3.0, 4.5, 6.0, 3.5, 4.1, -1.0]) for _ in FORGET.y), per_record=True)
CONTEXT = Context(
    NETWORK, make, EPOCHS, 0, unit_model("0.1", "0.05"),
    out_margins=MARGINS, held_out=LabelledRows(DATA.test_x, DATA.test_y),
)  # fmt: skip


def unlearned(name: str, context: Context = CONTEXT) -> Outcome:
    return UNLEARNERS[name](BASE, FORGET, RETAIN, context)


def right(onnx: bytes, rows: Rows) -> float:
    return float((session_answers(onnx)(rows.x) == rows.y).mean())


@pytest.mark.parametrize("name", UNLEARNERS)
def test_every_way_hands_back_a_network_that_still_answers(name: str) -> None:
    found = unlearned(name)
    assert found.seconds > 0
    assert found.records == 6
    assert right(found.onnx, RETAIN) > (0.2 if name in DAMAGE else 0.65)
    assert found.holds_base == (name in (*PATCHES, "class-cap", "REASSURE"))
    if found.holds_base:
        assert len(found.onnx) > len(BASE)
        assert (found.patch_bits > 0) == (name != "class-cap")


@pytest.mark.parametrize("name", ["box", "relu-0", "linear-region", "class-cap"])
def test_patches_that_redirect_leave_no_forget_record_answered(name: str) -> None:
    assert right(BASE, FORGET) > 0.8
    assert right(unlearned(name).onnx, FORGET) == 0


def test_a_held_margin_leaves_the_answer_where_most_networks_have_it() -> None:
    assert right(unlearned("non-member").onnx, FORGET) == 1
    flipped = OutMargins(tuple(-pool for pool in MARGINS.pools), per_record=True)
    assert right(unlearned("non-member", replace(CONTEXT, out_margins=flipped)).onnx, FORGET) == 0


def test_the_base_in_torch_is_left_as_it_was() -> None:
    for name in ("fine-tune", "gradient ascent", "amnesiac", "SISA"):
        unlearned(name)
    assert export_onnx(NETWORK, DATA.train_x) == BASE


@pytest.mark.parametrize(
    ("name", "left_out", "words"),
    [
        ("non-member", {"out_margins": None}, "margins of networks that never saw"),
        ("non-member, held out", {"held_out": None}, "records that the base never saw"),
    ],
)
def test_what_a_redirect_needs_is_asked_for(name: str, left_out: dict, words: str) -> None:
    with pytest.raises(UnlearnerError, match=words):
        unlearned(name, replace(CONTEXT, **left_out))


def test_reassure_needs_layers_in_turn() -> None:
    import torch

    odd = torch.nn.ModuleList([NETWORK])
    with pytest.raises(UnlearnerError, match="Linear and ReLU layers in turn, found ModuleList"):
        UNLEARNERS["REASSURE"](BASE, FORGET, RETAIN, replace(CONTEXT, network=odd))


def test_notes_are_joined_and_the_later_one_comes_first() -> None:
    made = Outcome(b"", 1.0, 2, "old").noted("new").with_patch(32, "newest")
    assert (made.note, made.patch_bits, made.holds_base) == ("newest; new; old", 32, True)
    assert Outcome(b"", 1.0, 2).noted("").note == ""


def test_a_record_without_a_region_is_counted_and_none_is_refused(monkeypatch) -> None:
    from prune_verify.measure import patching

    found = patching.region_radius
    monkeypatch.setattr(
        patching, "region_radius",
        lambda network, row, model: 0 if (row == FORGET.x[0]).all() else found(network, row, model),
    )  # fmt: skip
    made = unlearned("linear-region")
    assert "1 records have no region and stay" in made.note
    assert (made.records, right(made.onnx, Rows(FORGET.x[:1], FORGET.y[:1]))) == (6, 1)
    monkeypatch.setattr(patching, "region_radius", lambda *_: 0)
    with pytest.raises(UnlearnerError, match="expected a record whose region holds a ball"):
        unlearned("linear-region")
