"""``measure disclosure``: what a holder of ``patch.json`` can reconstruct of the forgotten records.

Source: FORMATS section 3; MATHS 4.1 (privacy of the patch itself).
"""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from prune_verify.files import new_file
from prune_verify.grey_levels import picture_shape
from prune_verify.measure.errors import MeasureInputError
from prune_verify.measure.inputs import (
    Inputs,
    Progress,
    add_shared_options,
    command_line,
    measured,
    require_apart,
    require_new,
)
from prune_verify.measurement_file import MeasuredRow, decimal_text, measured_row

if TYPE_CHECKING:
    from prune_verify.checker.records import Records
    from prune_verify.measure.disclosure import Disclosure, Errors, Knowledge

__all__ = ["add_options", "run"]

_SIZE = re.compile(r"([0-9]{1,4})x([0-9]{1,4})\Z")
_MOST_PICTURES = 24


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add every option of ``measure disclosure``."""
    parser.add_argument("base", type=Path, metavar="BASE.onnx", help="the base network")
    parser.add_argument("patch", type=Path, metavar="PATCH.json", help="the patch")
    parser.add_argument("--forget", required=True, metavar="RECORDS", help="the forget set, without shifted copies")
    parser.add_argument(
        "--public", required=True, metavar="RECORDS", help="records of the same population that were not forgotten"
    )
    parser.add_argument("--image", metavar="HxW", help="rows are grey pictures of this size")
    parser.add_argument("--svg", type=Path, metavar="FILE.svg", help="records beside guesses and label means, drawn")
    parser.add_argument(
        "--radius",
        metavar="R",
        help="radius of the forget balls, in input units (decimal); guessed from the patch where it is left out",
    )
    parser.add_argument(
        "--shifts",
        type=int,
        default=0,
        metavar="P",
        help="most pixels of shifted copies, as in repair --shifts (default 0)",
    )
    parser.add_argument("--domain", default="0,1", metavar="LO,HI", help="ends of every number (default 0,1)")
    add_shared_options(parser)


@dataclass(frozen=True)
class _Asked:
    """What the options say, read."""

    shape: tuple[int, int] | None
    knowledge: Knowledge


def _asked(options: argparse.Namespace, input_shape: tuple[int, ...]) -> _Asked:
    """The size of pictures and what the attacker knows.

    Raises:
        MeasureInputError: options that cannot be read, or do not fit the rows.

    """
    from prune_verify.checker.encoding import parse_decimal
    from prune_verify.measure.disclosure import Knowledge

    shape = picture_shape(input_shape)
    if options.image is not None:
        found = _SIZE.match(options.image)
        shape = (int(found[1]), int(found[2])) if found else None
        if shape is None or shape[0] * shape[1] != int(np.prod(input_shape)):
            text = f"--image: expected HxW of {int(np.prod(input_shape))} numbers in all, found {options.image!r}"
            raise MeasureInputError(text)
    try:
        low, high = (float(end) for end in options.domain.split(","))
    except ValueError:
        low = high = 0.0
    if not low < high:
        text = f"--domain: expected LO,HI with LO below HI, found {options.domain!r}"
        raise MeasureInputError(text)
    if options.shifts < 0 or (options.shifts and options.image is None):
        text = f"--shifts: expected 0 or more pixels, and --image, found {options.shifts}"
        raise MeasureInputError(text)
    if options.svg is not None and shape is None:
        text = "--svg: expected rows that are pictures, and their size (--image HxW), found neither"
        raise MeasureInputError(text)
    size = shape if options.shifts else None
    radius = None if options.radius is None else float(parse_decimal(options.radius, "--radius"))
    return _Asked(shape, Knowledge(radius, size, options.shifts, low, (low, high)))


def _rows(found: Disclosure, records: int) -> list[MeasuredRow]:
    rms = "root mean square error in input units, mean over records; bootstrap"
    named: tuple[tuple[str, Errors, str], ...] = (
        ("error.attack", found.attack, f"{rms}; guessed from the patch"),
        ("error.label-mean", found.label_mean, f"{rms}; guessed without the patch"),
        ("error.random", found.random, f"{rms}; another record of the label"),
        ("gain", found.gain, "label-mean less attack, record by record; above 0: the patch discloses"),
    )
    exact = "counted in patch.json"
    return [
        *(measured_row(name, e.mean, (e.low, e.high), note) for name, e, note in named),
        measured_row("nearer-than-mean", float(np.mean(np.array(found.gain.each) > 0)), note="share of records"),
        measured_row("bits", found.bits, note=f"{exact}, all records together", digits=15),
        measured_row("bits-per-record", found.bits / records, note=f"{exact}, mean"),
        measured_row("intervals", found.intervals, note=exact, digits=15),
    ]


def _drawn(found: Disclosure, forget: Records, public: Records, shape: tuple[int, int], known: Knowledge) -> bytes:
    from prune_verify.measure.reconstruction_picture import reconstruction_picture

    shown = range(min(len(forget), _MOST_PICTURES))
    truth, others = forget.rows.astype(np.float64), public.rows.astype(np.float64)
    pictures = [
        (int(forget.y[i]), truth[i], found.guesses[i], others[public.y == forget.y[i]].mean(axis=0)) for i in shown
    ]
    errors = [(found.attack.each[i], found.label_mean.each[i]) for i in shown]
    return reconstruction_picture(pictures, errors, shape, known.domain)


def _said(found: Disclosure) -> str:
    """The result in a sentence."""
    if found.gain.low > 0:
        return "the patch discloses: guesses from it are nearer to the records than the mean of their label"
    if found.gain.high < 0:
        return "this attack guesses worse than the mean of the label does; that says nothing of better attacks"
    return "this attack is not shown to guess better than the mean of the label; that says nothing of better attacks"


def run(options: argparse.Namespace, progress: Progress) -> tuple[int, str, dict[str, object]]:
    """Reconstruct the forgotten records from a patch, and compare with guesses without it.

    Returns:
        Exit code, text, and the object for ``--json``.

    Raises:
        CheckError: a file cannot be read.
        MeasureInputError: files or options that do not fit one another.
        RepairInputError: the public sample is too small, or holds a forgotten record.

    """
    from prune_verify.checker.claim import LabelledRows
    from prune_verify.checker.patch_json import parse_patch
    from prune_verify.measure.disclosure import measure_disclosure

    require_new([options.out, options.svg])
    inputs = Inputs(options)
    _, base = inputs.network(options.base, "base network")
    file = parse_patch(inputs.file(options.patch, "patch parameters"), options.patch.name)
    if file.base_network != base.digest():
        text = f"{options.patch}: expected a patch of {options.base.name}, found one of another base network"
        raise MeasureInputError(text)
    asked = _asked(options, base.input_shape)
    forget = inputs.records(options.forget, "forget set", base)
    public = inputs.records(options.public, "public sample", base)
    require_apart(forget, public)
    progress("reconstruction", 0, 1)
    found = measure_disclosure(
        base,
        file.patch,
        LabelledRows(forget.x, forget.y),
        LabelledRows(public.x, public.y),
        knowledge=asked.knowledge,
        seed=options.seed,
    )
    progress("reconstruction", 1, 1)
    series = {
        "record.label": tuple(str(label) for label in forget.y.tolist()),
        "record.error.attack": tuple(decimal_text(e) for e in found.attack.each),
        "record.error.label-mean": tuple(decimal_text(e) for e in found.label_mean.each),
    }
    wrote = []
    if options.svg is not None and asked.shape is not None:
        new_file(options.svg, _drawn(found, forget, public, asked.shape, asked.knowledge))
        wrote.append(options.svg)
    command = command_line("disclosure", add_options, options)
    rows = _rows(found, len(forget))
    said = [f"family {found.family}: {_said(found)}"]
    return measured(options, "disclosure", command, inputs, rows, series, said=said, wrote=wrote)
