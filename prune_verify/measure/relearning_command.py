"""``measure relearning``: how soon what was forgotten comes back, beside networks that never saw it.

Source: FORMATS section 3; THREATS T2.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from prune_verify.charts import svg_file
from prune_verify.files import new_file
from prune_verify.measure.errors import MeasureInputError
from prune_verify.measure.inputs import (
    Inputs,
    Progress,
    add_shared_options,
    command_line,
    measured,
    require_apart,
    require_new,
    require_same_form,
)
from prune_verify.measurement_charts import relearning_charts

if TYPE_CHECKING:
    from prune_verify.checker.network import Network
    from prune_verify.measure.baselines import Rows
    from prune_verify.measure.relearning_plan import Sets
    from prune_verify.measure.shadow_training import Recipe

__all__ = ["add_options", "run"]

_MODES = ("head", "full", "prototype", "strip")
_PATCHED = "patched"
_CONTROL = "retrain"
_MOST_EPOCHS = 400
_BATCH = 512


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add every option of ``measure relearning``."""
    parser.add_argument("base", type=Path, metavar="BASE.onnx", help="the base network")
    parser.add_argument("patched", type=Path, metavar="PATCHED.onnx", help="the network that is to have forgotten")
    parser.add_argument("--forget", required=True, metavar="RECORDS", help="the forget set")
    parser.add_argument("--retain", required=True, metavar="RECORDS", help="the retained set, for the control")
    parser.add_argument("--test", required=True, metavar="RECORDS", help="held-out records")
    parser.add_argument(
        "--against", action="append", default=[], metavar="NAME=NET.onnx",
        help="another network to compare with (repeatable); one that is called retrain is the control",
    )  # fmt: skip
    parser.add_argument(
        "--modes", default="head,full,prototype,strip", metavar="MODE,..", help=f"default {','.join(_MODES)}"
    )
    parser.add_argument(
        "--records", default="1,2,5,10,50", metavar="N,..",
        help="how many forgotten records the attacker has, besides all of them (default 1,2,5,10,50)",
    )  # fmt: skip
    parser.add_argument(
        "--recovered", default="1", metavar="SHARE", help="share of the base's accuracy that counts as back (default 1)"
    )
    parser.add_argument("--epochs", type=int, default=20, metavar="N", help="epochs of relearning (default 20)")
    parser.add_argument("--batch", type=int, default=32, metavar="N", help="records a step of relearning (default 32)")
    parser.add_argument("--rate", default="0.001", metavar="R", help="the attacker's learning rate (default 0.001)")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="seeds, one control for each (default 3)")
    parser.add_argument(
        "--retained", type=int, default=0, metavar="N",
        help="retained records that the attacker trains on as well (default 0)",
    )  # fmt: skip
    parser.add_argument(
        "--others", type=int, default=100, metavar="N",
        help="records of the same labels, from the test set, for benign fine-tuning (default 100)",
    )  # fmt: skip
    parser.add_argument(
        "--control-epochs", type=int, metavar="N",
        help="epochs of the control; without it: as many as bring a network as close to its records as the base is",
    )  # fmt: skip
    parser.add_argument(
        "--control-rate", default="0.001", metavar="R", help="learning rate of the control (default 0.001)"
    )
    parser.add_argument("--svg", type=Path, metavar="FILE.svg", help="what comes back by epoch, drawn")
    add_shared_options(parser)


@dataclass(frozen=True)
class _Asked:
    """What the options say, read."""

    modes: tuple[str, ...]
    sizes: tuple[int, ...]
    recovered: float
    rate: float
    control_rate: float
    against: tuple[tuple[str, Path], ...]


def _number(value: str, option: str, most: float) -> float:
    from prune_verify.checker.encoding import parse_decimal

    found = float(parse_decimal(value, option))
    if not 0 < found <= most:
        text = f"{option}: expected more than 0 and at most {most:g}, found {value}"
        raise MeasureInputError(text)
    return found


def _asked(options: argparse.Namespace, forgotten: int) -> _Asked:
    """Read the options.

    Raises:
        MeasureInputError: the first that cannot be read.

    """
    from prune_verify.measure.relearning_plan import sizes_of

    for name in ("epochs", "batch", "seeds", "control_epochs"):
        if getattr(options, name) is not None and getattr(options, name) < 1:
            text = f"--{name.replace('_', '-')}: expected 1 or more, found {getattr(options, name)}"
            raise MeasureInputError(text)
    for name in ("others", "retained"):
        if getattr(options, name) < 0:
            text = f"--{name}: expected 0 or more, found {getattr(options, name)}"
            raise MeasureInputError(text)
    modes = tuple(options.modes.split(","))
    for mode in modes:
        if mode not in _MODES or modes.count(mode) > 1:
            text = f"--modes: expected each of {', '.join(_MODES)} at most once, found {mode!r}"
            raise MeasureInputError(text)
    against: list[tuple[str, Path]] = []
    for one in options.against:
        name, equals, path = one.partition("=")
        taken = {_PATCHED, "base", "strip", *(other for other, _ in against)}
        if not equals or not name.replace("-", "").replace("_", "").isalnum() or not name.isascii() or name in taken:
            text = f"--against: expected NAME=NET.onnx with a name of its own, found {one!r}"
            raise MeasureInputError(text)
        against.append((name, Path(path)))
    return _Asked(
        modes,
        sizes_of(options.records, forgotten),
        _number(options.recovered, "--recovered", 1.0),
        _number(options.rate, "--rate", 10.0),
        _number(options.control_rate, "--control-rate", 10.0),
        tuple(against),
    )


def _recipe(
    base: tuple[bytes, Network], sets: Sets, options: argparse.Namespace, rate: float, progress: Progress
) -> tuple[Recipe, list[str]]:
    """How controls are trained: for the epochs that were asked, or for as many as the base took."""
    from prune_verify.checker.network import evaluate
    from prune_verify.measure.baselines import Rows
    from prune_verify.measure.shadow_epochs import fit_of, match_epochs
    from prune_verify.measure.shadow_training import Recipe

    if options.control_epochs is not None:
        return Recipe(base[0], options.control_epochs, rate=rate), []
    x, y = (np.concatenate([getattr(rows, name) for rows in (sets.forget, sets.retain)]) for name in ("x", "y"))
    logits = np.concatenate([evaluate(base[1], x[start : start + _BATCH]) for start in range(0, len(y), _BATCH)])
    goal = fit_of(logits, y)
    matched = match_epochs(Recipe(base[0], _MOST_EPOCHS, rate=rate), Rows(x, y), goal, options.seed, progress=progress)
    return matched.recipe, [f"the control is trained for {matched.text()}"]


def _controls(recipe: Recipe, retain: Rows, options: argparse.Namespace, progress: Progress) -> list[bytes]:
    """One network for each seed, trained from new weights on the retained records alone."""
    from prune_verify.measure.shadow_training import Networks, train_bases

    members = np.ones((options.seeds, len(retain.y)), dtype=np.bool_)
    seeds = tuple(range(options.seed, options.seed + options.seeds))
    return train_bases(Networks(recipe, retain, members, seeds, "controls"), progress=progress)


def _others(
    options: argparse.Namespace, asked: _Asked, inputs: Inputs, base: tuple[bytes, Network], sets: Sets, say: Progress
) -> tuple[dict[str, list[bytes]], list[str]]:
    """By name, a network for every seed or one for all of them, the control first; and how that was trained."""
    given = {}
    for name, path in asked.against:
        data, network = inputs.network(path, f"network {name}")
        require_same_form(options.base.name, base[1], path.name, network)
        given[name] = [data]
    if _CONTROL in given:
        return {_CONTROL: given.pop(_CONTROL), **given}, []
    recipe, said = _recipe(base, sets, options, asked.control_rate, say)
    return {_CONTROL: _controls(recipe, sets.retain, options, say), **given}, said


def _sets(options: argparse.Namespace, inputs: Inputs, network: Network) -> Sets:
    from prune_verify.measure.baselines import Rows
    from prune_verify.measure.relearning_plan import Sets

    forget, retain, test = (
        inputs.records(getattr(options, name), f"{name} set", network) for name in ("forget", "retain", "test")
    )
    require_apart(forget, retain)
    require_apart(forget, test)
    first, second, third = (Rows(found.x, found.y) for found in (forget, retain, test))
    return Sets.of(first, second, third, options.others, options.seed)


def run(options: argparse.Namespace, progress: Progress) -> tuple[int, str, dict[str, object]]:
    """Measure how soon the forgotten records come back.

    Returns:
        Exit code, text, and the object for ``--json``.

    Raises:
        CheckError: a file cannot be read.
        MeasureInputError: files or options that do not fit one another.
        UnsupportedNetworkError: a network that cannot be trained here.

    """
    from prune_verify.measure.relearning import Attack
    from prune_verify.measure.relearning_results import Results, strip_rows

    require_new([options.out, options.svg])
    inputs = Inputs(options)
    base, patched = inputs.pair(options.base, options.patched)
    sets = _sets(options, inputs, base[1])
    asked = _asked(options, len(sets.forget.y))
    others, trained = _others(options, asked, inputs, base, sets, progress)
    candidates = {_PATCHED: [patched[0]], **others}
    attack = Attack(options.epochs, options.batch, asked.rate, options.retained)
    modes = tuple(mode for mode in asked.modes if mode != "strip")
    results = Results(base, candidates, sets, attack, asked.recovered, (options.seed, options.seeds))
    results.require_room(modes, asked.sizes)
    results.measure(modes, asked.sizes, progress)
    rows, said = results.rows(), [*trained, *results.said()]
    if "strip" in asked.modes:
        more, words = strip_rows(base[1], patched[1], sets.forget)
        rows, said = [*more, *rows], [*words, *said]
    wrote = []
    if options.svg is not None and results.series():
        new_file(options.svg, svg_file(relearning_charts(results.series())))
        wrote.append(options.svg)
    command = command_line("relearning", add_options, options)
    return measured(options, "relearning", command, inputs, rows, results.series(), said=said, wrote=wrote)
