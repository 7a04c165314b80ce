"""Checkpoints: what is kept comes back bit by bit, and whatever else stands in the file is refused with its name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from prune_verify.checker.encoding import canonical_json
from prune_verify.repair.errors import RepairInputError
from prune_verify.repair.training_state import Checkpoint, Curve, Saved, learning_json, run_digest
from tests.repair.bases import trained_digits

ARRAYS = {"weight": np.array([0.1, -np.inf]), "curves": np.zeros((0, 3)), "state": np.arange(4, dtype=np.uint8)}


def _kept(path: Path) -> Checkpoint:
    checkpoint = Checkpoint(path / "training.npz")
    arrays = {**ARRAYS, "curves": np.full((2, 3), np.nan)}
    checkpoint.save("run", Saved(40, "interval", arrays))
    return checkpoint


def test_what_was_kept_comes_back(tmp_path: Path) -> None:
    checkpoint = _kept(tmp_path)
    found = checkpoint.load("run", ARRAYS)
    assert found is not None
    assert (found.step, found.phase, set(found.arrays)) == (40, "interval", set(ARRAYS))
    assert found.arrays["weight"].tobytes() == ARRAYS["weight"].tobytes()
    assert found.arrays["curves"].shape == (2, 3)
    assert [path.name for path in tmp_path.iterdir()] == ["training.npz"]


def test_no_file_is_a_fresh_start(tmp_path: Path) -> None:
    assert Checkpoint(tmp_path / "none.npz").load("run", ARRAYS) is None


def _arrays(**changes: np.ndarray | None) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with np.load(path) as file:
            found = {name: file[name] for name in file.files}
        found |= changes
        np.savez(path, **{name: value for name, value in found.items() if value is not None})

    return write


def _facts(text: str) -> np.ndarray:
    return np.frombuffer(text.encode(), dtype=np.uint8)


@pytest.mark.parametrize(
    ("sentence", "spoil"),
    [
        ("no npz", lambda path: path.write_bytes(b"not a zip file")),
        ("an empty file", lambda path: path.write_bytes(b"")),
        ("half a file", lambda path: path.write_bytes(path.read_bytes()[:300])),
        ("pickled objects", _arrays(weight=np.array([{"a": 1}, None]))),
        ("no facts", _arrays(facts=None)),
        ("facts that are no JSON", _arrays(facts=_facts("{"))),
        ("facts that are no object", _arrays(facts=_facts("[1]"))),
        (
            "facts without a step",
            _arrays(facts=_facts('{"format":"prune-verify-training/1","phase":"interval","run":"run"}')),
        ),
        ("another format", _arrays(facts=_facts('{"format":"x","phase":"interval","run":"run","step":1}'))),
        ("another shape", _arrays(weight=np.zeros(3))),
        ("another type", _arrays(weight=np.zeros(2, dtype=np.float32))),
        ("curves with other columns", _arrays(curves=np.zeros((2, 4)))),
        ("an array that is missing", _arrays(state=None)),
        ("an array too many", _arrays(more=np.zeros(1))),
    ],
)
def test_other_files_are_refused_by_name(tmp_path: Path, sentence: str, spoil: Callable[[Path], None]) -> None:
    checkpoint = _kept(tmp_path)
    spoil(checkpoint.path)
    with pytest.raises(RepairInputError, match=r"training\.npz: expected a checkpoint of this training, found"):
        checkpoint.load("run", ARRAYS)
    assert sentence


def test_another_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RepairInputError, match="another base, other records or other settings"):
        _kept(tmp_path).load("other", ARRAYS)


def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "none" / "training.npz")
    with pytest.raises(RepairInputError, match=r"training\.npz: expected a file that can be written"):
        checkpoint.save("run", Saved(0, "interval", dict(ARRAYS)))


def test_no_steps_between_checkpoints_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RepairInputError, match="at least 1 step"):
        Checkpoint(tmp_path / "training.npz", every=0)


def test_the_digest_of_a_run_is_that_of_everything_in_it() -> None:
    base, data = trained_digits()
    x = data.train_x[:3]
    seen = {
        run_digest(base, (x,), {"seed": 0}),
        run_digest(base, (x,), {"seed": 1}),
        run_digest(base, (x + 1,), {"seed": 0}),
        run_digest(base, (x.reshape(3, 8, 8),), {"seed": 0}),
        run_digest(base, (x, x), {"seed": 0}),
        run_digest(base, (x.astype(np.float64),), {"seed": 0}),
        run_digest(base, (x,), {"seed": 0, "steps": 1}),
    }
    assert len(seen) == 7
    assert run_digest(base, (x.copy(),), {"seed": 0}) in seen


def test_curves_are_written_without_floats_and_what_is_no_number_is_null() -> None:
    curves = [
        Curve(0, "interval", float("nan"), 0.0, 1.0),
        Curve(20, "relaxation", -1e-9, 0.5, 1.0, 3e9, 0.25, 0.0, 1.0),
    ]
    written = canonical_json(learning_json(curves))
    first, second = json.loads(written, parse_float=pytest.fail)["rows"]
    assert first["margin"] is first["forgetLoss"] is None
    assert (second["step"], second["phase"], second["margin"]) == (20, "relaxation", "-0.000000")
    assert (second["forgetLoss"], second["retainLoss"]) == ("3000000000.000000", "0.250000")
