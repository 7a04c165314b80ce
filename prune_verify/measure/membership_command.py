"""``measure membership``: whether the forget set can still be told from records that were never seen.

Shadow networks of the base's architecture are trained here; base, patched network, a genuine retrain and any other
network are attacked side by side.

Source: FORMATS section 3; MATHS 6 (what is measured of forgetting).
"""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from prune_verify.checker.encoding import parse_decimal, sha256_hex
from prune_verify.files import new_file
from prune_verify.measure.errors import MeasureInputError
from prune_verify.measure.inputs import (
    Inputs,
    Progress,
    add_shared_options,
    command_line,
    require_apart,
    require_new,
    require_same_form,
)
from prune_verify.measurement_file import MeasurementFile, emit_measurement

if TYPE_CHECKING:
    from prune_verify.checker.network import Network
    from prune_verify.measure.membership import Target
    from prune_verify.measure.membership_ensembles import EnsembleAsked, Ensembles
    from prune_verify.measure.membership_run import Asked, Done

__all__ = ["FILES", "add_options", "run"]

FILES = ("membership.measurement.json", "membership.npz", "membership.svg")
_NAME = re.compile(r"[A-Za-z0-9_-]{1,40}")
_MOST_NETWORKS = 7  # beside base and patched: a measurement file has room for 256 rows


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add every option of ``measure membership``."""
    parser.add_argument("base", type=Path, metavar="BASE.onnx", help="the network before the request")
    parser.add_argument("patched", type=Path, metavar="PATCHED.onnx", help="the network after it")
    parser.add_argument("--forget", required=True, metavar="RECORDS", help="the forget set: members of the base")
    parser.add_argument("--retain", required=True, metavar="RECORDS", help="the rest of the base's training set")
    parser.add_argument("--non-members", required=True, metavar="RECORDS", help="records that the base never saw")
    parser.add_argument(
        "--against", action="append", default=[], metavar="NAME=NETWORK.onnx",
        help="another network to attack beside the patched one (repeatable)",
    )  # fmt: skip
    parser.add_argument(
        "--shadows", type=int, default=64, metavar="N", help="shadow networks, an even number (default 64)"
    )
    parser.add_argument(
        "--retrained", type=int, default=1, metavar="N",
        help="genuine retrains, networks on which attacks must find nothing (default 1)",
    )  # fmt: skip
    parser.add_argument(
        "--ensembles", type=int, metavar="N",
        help="networks of each kind, 20 or more: N bases of other seeds unlearn, N never saw the forget set; U-LiRA, "
        "forgetting score and KLoM compare them",
    )  # fmt: skip
    parser.add_argument(
        "--family", default="box", metavar="NAME",
        help="how --ensembles unlearns: box, non-member, retrain, fine-tune, ... (default box)",
    )  # fmt: skip
    parser.add_argument("--radius", default="0.1", help="of forget balls in --ensembles, in input units (default 0.1)")
    parser.add_argument(
        "--retained-radius", default="0.05", help="of retained balls in --ensembles, in input units (default 0.05)"
    )
    parser.add_argument(
        "--epochs", type=int, metavar="N",
        help="epochs of training (without it: as many as one needs to fit its records as the base does, up to 100)",
    )  # fmt: skip
    parser.add_argument("--batch", type=int, default=128, metavar="N", help="records per step (default 128)")
    parser.add_argument("--rate", type=float, default=1e-3, metavar="R", help="Adam's learning rate (default 0.001)")
    parser.add_argument(
        "--weight-decay", type=float, default=0.0, metavar="W", help="Adam's L2 penalty, at that rate (default 0.0)"
    )
    parser.add_argument(
        "--cache", type=Path, metavar="DIR", help="keep trained networks here, by content; a run that was ended goes on"
    )
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes that train (default 1)")
    parser.add_argument(
        "--device", choices=["cpu", "auto"], default="cpu", help="auto: train on a GPU where there is one (default cpu)"
    )
    add_shared_options(parser, folder=True)


@dataclass(frozen=True)
class _Other:
    name: str
    path: Path


def _others(options: argparse.Namespace) -> list[_Other]:
    """Networks to attack besides, by the names that they are to have."""
    found: list[_Other] = []
    for word in options.against:
        name, equals, path = word.partition("=")
        taken = {"base", "patched", *(one.name for one in found)}
        if not equals or not _NAME.fullmatch(name) or name in taken or name.startswith("retrained"):
            expected = "NAME=NETWORK.onnx with a new name of letters, digits, - and _"
            raise MeasureInputError(f"--against: expected {expected}, found {word}")
        found.append(_Other(name, Path(path)))
    if len(found) + options.retrained > _MOST_NETWORKS:
        raise MeasureInputError(
            f"--against, --retrained: expected at most {_MOST_NETWORKS} networks together, "
            f"found {len(found)} and {options.retrained}"
        )
    return found


def _require_usable(options: argparse.Namespace) -> None:
    """Refuse numbers that cannot be, before anything is read."""
    for name, least in (("retrained", 1), ("workers", 1), ("batch", 1), ("shadows", 2)):
        if getattr(options, name) < least:
            raise MeasureInputError(f"--{name}: expected {least} or more, found {getattr(options, name)}")
    if options.shadows % 2:
        raise MeasureInputError(f"--shadows: expected an even number, found {options.shadows}")
    if options.epochs is not None and options.epochs < 1:
        raise MeasureInputError(f"--epochs: expected 1 or more, found {options.epochs}")
    if options.out.exists() and not options.out.is_dir():
        raise MeasureInputError(f"--out: expected a folder, found the file {options.out}")
    if options.out.is_dir():
        require_new([options.out / name for name in FILES])


def _ensemble(options: argparse.Namespace) -> EnsembleAsked | None:
    """What is asked of ensembles, if anything."""
    from prune_verify.measure.membership_ensembles import EnsembleAsked

    if options.ensembles is None:
        return None
    for name in ("radius", "retained_radius"):
        parse_decimal(getattr(options, name), f"--{name.replace('_', '-')}")
    return EnsembleAsked(options.family, options.ensembles, options.radius, options.retained_radius)


def _asked(options: argparse.Namespace, inputs: Inputs, base: bytes, network: Network) -> Asked:
    from prune_verify.measure.baselines import Rows
    from prune_verify.measure.membership_run import Asked
    from prune_verify.measure.membership_sets import choose_sets
    from prune_verify.measure.shadow_training import Recipe

    forget = inputs.records(options.forget, "forget set", network)
    retain = inputs.records(options.retain, "retained set", network)
    others = inputs.records(options.non_members, "non-members", network)
    for first, second in ((forget, retain), (forget, others), (retain, others)):
        require_apart(first, second)
    return Asked(
        sets=choose_sets(Rows(forget.x, forget.y), Rows(retain.x, retain.y), Rows(others.x, others.y), options.seed),
        recipe=Recipe(base, options.epochs or 1, options.batch, options.rate, options.weight_decay, options.device),
        epochs=options.epochs,
        shadows=options.shadows,
        retrained=options.retrained,
        seed=options.seed,
        cache=options.cache,
        workers=options.workers,
    )


def _targets(options: argparse.Namespace, inputs: Inputs, network: Network, patched: bytes) -> tuple[Target, ...]:
    from prune_verify.measure.deployed import Deployed
    from prune_verify.measure.membership import Target

    found = [Target("patched", Deployed(patched, options.patched.name).logits)]
    for other in _others(options):
        data, form = inputs.network(other.path, f"network {other.name}")
        require_same_form(options.base.name, network, other.path.name, form)
        found.append(Target(other.name, Deployed(data, other.path.name).logits))
    return tuple(found)


def run(options: argparse.Namespace, progress: Progress) -> tuple[int, str, dict[str, object]]:
    """Train shadow networks, attack all networks, and write what was found.

    Returns:
        Exit code, text, and the object for ``--json``.

    Raises:
        CheckError: a file cannot be read.
        MeasureInputError: files or options that do not fit one another.
        UnsupportedNetworkError: a network that cannot be trained here.
        CertifyError: the cache cannot be written, or workers cannot be had.

    """
    from prune_verify.measure.deployed import Deployed
    from prune_verify.measure.membership import Target
    from prune_verify.measure.membership_ensembles import measure_ensembles, require_recipe
    from prune_verify.measure.membership_run import run_membership
    from prune_verify.measure.membership_text import (
        ensemble_said,
        ensemble_table,
        rows_of,
        said_of,
        series_of,
        tables_of,
    )

    _require_usable(options)
    ensemble = _ensemble(options)
    inputs = Inputs(options)
    (base, network), (patched, _) = inputs.pair(options.base, options.patched)
    targets = _targets(options, inputs, network, patched)
    asked = _asked(options, inputs, base, network)
    if ensemble is not None:
        require_recipe(asked.recipe, ensemble.family)
    done = run_membership(asked, Target("base", Deployed(base, options.base.name).logits), targets, progress)
    ensembles = None if ensemble is None else measure_ensembles(done, ensemble, progress)
    command = command_line("membership", add_options, options)
    measurement = MeasurementFile(
        "membership", command, options.seed, inputs.digests, tuple(rows_of(done, ensembles)), series_of(done)
    )
    data = emit_measurement(measurement)
    written = _written(options.out, data, done, ensembles)
    said = [*said_of(done), *ensemble_said(ensembles)]
    lines = [
        *said,
        "",
        "measured, not proved:",
        *tables_of(done),
        *ensemble_table(ensembles),
        "",
        *(f"wrote {path}" for path in written),
    ]
    return 0, "\n".join(lines), {
        "measurement": json.loads(data),
        "said": said,
        "wrote": [str(path) for path in written],
        "sha256": sha256_hex(data),
    }  # fmt: skip


def _written(out: Path, data: bytes, done: Done, ensembles: Ensembles | None) -> list[Path]:
    from prune_verify.measure.membership_picture import draw_membership
    from prune_verify.measure.membership_text import arrays_of

    out.mkdir(parents=True, exist_ok=True)
    paths = [out / name for name in FILES]
    for path, content in zip(paths, (data, arrays_of(done, ensembles), draw_membership(done.membership)), strict=True):
        new_file(path, content)
    return paths
