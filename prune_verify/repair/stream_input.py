"""What a step of a stream starts from: the options, the folder of earlier requests, the new records, the retained ones.

Source: MATHS 4.4; FORMATS section 1.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

import numpy as np
import numpy.typing as npt

from prune_verify.checker.claim import LabelledRows
from prune_verify.checker.encoding import read_file
from prune_verify.checker.load_onnx import LoadedModel
from prune_verify.checker.patch import INPUT, JointPatch
from prune_verify.checker.patch_json import parse_patch
from prune_verify.checker.records import Records, check_against, duplicates_between, load_records
from prune_verify.repair.asked_model import asked_threat_model
from prune_verify.repair.errors import RepairInputError, named
from prune_verify.repair.stream import Stream
from prune_verify.repair.threat_model import ThreatModel, default_threat_model, load_threat_model
from prune_verify.request_sets import domain_of, read_sets

__all__ = ["LIVE", "MODEL", "Live", "begun", "onto", "read_records", "require_options", "retained", "test_rows"]

LIVE, MODEL = "forget.npz", "threat-model.toml"
_MOST_BYTES = 2**30
_FIXED = ("radius", "retained_radius", "margin", "delta", "cover", "threat_model", "domain", "redirect")
_OF_OTHERS = (
    "shifts", "image", "clusters", "concept", "checkpoint", "non_members", "out_margins", "redirect_key",
)  # fmt: skip
_SECONDS = ("retrain_seconds", "prove_seconds")


@dataclass(frozen=True, eq=False)
class Live:
    """The stream as it stands before a step.

    Args:
        stream: its requests.
        forget: the live forget set, x float32 [records, *input_shape].
        patch: the patch that stands; None where the stream begins.
        model: the threat model of the whole stream.

    """

    stream: Stream
    forget: LabelledRows
    patch: JointPatch | None
    model: ThreatModel


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def require_options(options: argparse.Namespace) -> None:
    """Refuse what a stream does not know, before anything is read.

    Raises:
        RepairInputError: another family than boxes at the input and class caps, options that stand already, that
            contradict one another or that belong to a stream where there is none.

    """
    if not options.stream and options.onto is None:
        text = (
            "--withdraw, --test, --retrain-seconds and --prove-seconds belong to a stream: give --onto DIR or --stream"
        )
        raise RepairInputError(text)
    if options.stream and options.onto is not None:
        text = "--stream begins a stream and --onto goes on with one: give one of them"
        raise RepairInputError(text)
    other = [_option(name) for name in _OF_OTHERS if getattr(options, name) not in (None, False)]
    if options.family not in ("auto", "box", "class-cap") or options.site not in (None, ["input"]):
        other = [*other, "--family or --site"]
    if other or options.redirect == "non-member":
        first = other[0] if other else "--redirect non-member"
        text = f"{first}: streams are of gates at the input and of classes: other families make a patch alone"
        raise RepairInputError(text)
    for name in _SECONDS:
        value = getattr(options, name)
        if value is not None and not (isfinite(value) and value > 0):
            text = f"{_option(name)}: expected seconds above 0, got {value}"
            raise RepairInputError(text)
    _require_step(options)


def _require_step(options: argparse.Namespace) -> None:
    if options.forget is not None and (options.out / LIVE).absolute() == Path(options.forget).absolute():
        text = f"--forget {options.forget}: the live forget set is written there; give it another name or folder"
        raise RepairInputError(text)
    if options.onto is None:
        if options.withdraw:
            text = "--withdraw: belongs to --onto DIR; a stream that begins has no requests"
            raise RepairInputError(text)
        if options.forget is None and not options.forget_class:
            text = "--stream: nothing to forget: give --forget RECORDS, --forget-class C, or both"
            raise RepairInputError(text)
        return
    given = [_option(name) for name in _FIXED if getattr(options, name) is not None]
    if given:
        text = f"{given[0]}: the threat model of a stream is fixed when it begins, in {options.onto / MODEL}"
        raise RepairInputError(text)
    if options.forget is None and not options.forget_class and not options.withdraw:
        text = "--onto: give --forget RECORDS, --forget-class C or --withdraw REFERENCE"
        raise RepairInputError(text)


def _nothing(base: LoadedModel) -> LabelledRows:
    return LabelledRows(np.zeros((0, *base.network.input_shape), dtype=np.float32), np.zeros(0, dtype=np.int64))


def onto(options: argparse.Namespace, base: LoadedModel) -> Live:
    """What a folder of the stream holds, checked against the base.

    Raises:
        RepairInputError: it is none of a stream, or of another base, or its files are not of one step.
        CheckError: a file is not of its form.

    """
    folder: Path = options.onto
    stream = Stream.read(folder)
    digest = base.network.digest()
    if stream.base != digest:
        text = f"{folder}: expected a stream of the base {options.base} ({digest}), found one of {stream.base}"
        raise RepairInputError(text)
    model = load_threat_model(folder / MODEL, default_threat_model(domain_of("0,1", [])))
    file = parse_patch(read_file(folder / "patch.json", "patch parameters", _MOST_BYTES), str(folder / "patch.json"))
    if not isinstance(file.patch, JointPatch) or file.patch.sites != (INPUT,) or file.patch.holds:
        text = f"{folder / 'patch.json'}: expected gates at the input or a class cap, found family {file.patch.family}"
        raise RepairInputError(text)
    live = _nothing(base)
    if any(request.records for request in stream.requests):
        found = load_records(str(folder / LIVE), what="live forget set")
        found = _fitting(found, base, model, "live forget set")
        live = LabelledRows(found.x, found.y)
    most = max((record for request in stream.requests for record in request.records), default=-1)
    named_most = max((record for gate in file.patch.gates for record in gate.records), default=-1)
    if max(most, named_most) >= len(live.y):
        text = f"{folder}: expected records below {len(live.y)}, found {max(most, named_most)}: files of two streams"
        raise RepairInputError(text)
    return Live(stream, live, file.patch, model)


def begun(options: argparse.Namespace, base: LoadedModel, sets: Mapping[str, Records]) -> Live:
    """A new stream, with the threat model that all of its requests will have.

    Args:
        base: the network.
        sets: forget and retained set, by name.
        options: of ``repair``.

    Raises:
        RepairInputError: a threat model that streams do not know.
        CheckError: an amount or a domain cannot be read.

    """
    model = asked_threat_model(options, domain_of(options.domain, list(sets.values())))
    if model.redirect == "non-member":
        text = f"{options.threat_model}: redirect: a stream takes labels away: expected misclassify, got non-member"
        raise RepairInputError(text)
    return Live(Stream.begun(base.network.digest()), _nothing(base), None, model)


def read_records(options: argparse.Namespace) -> dict[str, Records]:
    """The new records, where there are any, and the retained ones.

    Raises:
        CheckError: a set cannot be read.

    """
    found = read_sets(options)
    if options.forget is None and options.retain is not None:
        found["retain"] = load_records(
            options.retain, what="retain set", label_column=options.label_column, encoding=options.encoding
        )
    return found


def _fitting(records: Records, base: LoadedModel, model: ThreatModel, what: str) -> Records:
    network = base.network
    return check_against(
        records, input_shape=network.input_shape, labels=network.labels, domain=model.domain, what=what
    )


def test_rows(options: argparse.Namespace, base: LoadedModel, model: ThreatModel) -> npt.NDArray[np.float32] | None:
    """The rows on which changed outputs are counted: float32 [rows, *input_shape], or None where none were given.

    Raises:
        CheckError: they cannot be read, or do not fit the network.

    """
    if options.test is None:
        return None
    found = load_records(options.test, what="test rows", label_column=options.label_column, encoding=options.encoding)
    return _fitting(found, base, model, "test rows").x


def retained(sets: Mapping[str, Records], forget: LabelledRows) -> LabelledRows:
    """The retained set of the sets, which holds no live forget record.

    Raises:
        RepairInputError: it is missing where there are records to forget, or holds one of them.

    """
    if "retain" not in sets:
        if len(forget.y):
            text = "--retain: the records that must stay as they are, are needed"
            raise RepairInputError(text)
        return forget
    found = sets["retain"]
    if len(forget.y):
        both = sorted({second for _, second in duplicates_between(Records(forget.x, forget.y, None, LIVE), found)})
        if both:
            text = f"{found.source}: records {named(both)} are to be forgotten by a live request; take them out"
            raise RepairInputError(text)
    return LabelledRows(found.x, found.y)
