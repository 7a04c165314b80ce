"""``prune-verify export``: the claims of a request as VNN-LIB properties with their networks, for other verifiers.

Claims about the patched network are VNN-LIB 1.0, listed in ``instances.csv`` as in VNN-COMP; claims about base and
patched network are VNN-LIB 2.0. Nothing is proved here, and what other tools answer is no part of a certificate.

Source: MATHS 2 (F, RC, RL, BD); FORMATS section 3; rules of VNN-COMP for ``instances.csv``.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from prune_verify.certify.claims import claims_of
from prune_verify.certify.command import read_sources
from prune_verify.certify.errors import CertifyInputError
from prune_verify.certify.issue import Sources
from prune_verify.certify.margin_model import margin_model
from prune_verify.certify.vnnlib_files import margin_rows, pair_property_text, property_text, with_margins
from prune_verify.checker.bounded_claims import goals_of
from prune_verify.checker.claim import Claim, LabelledRows, Problem
from prune_verify.checker.errors import UnsupportedVersionError
from prune_verify.checker.goals import Goals
from prune_verify.checker.load_onnx import LoadedModel, load_network
from prune_verify.checker.patch_json import parse_patch
from prune_verify.checker.records import Records
from prune_verify.checker.rules import REAL

__all__ = ["export_command"]

Progress = Callable[[str, int, int], None]

_ONE_NETWORK = ("forget", "band")
_TWO_NETWORKS = ("retain_close", "retain_label")
_RANGE = re.compile(r"([0-9]{0,9}):([0-9]{0,9})")
_README = """Properties written by prune-verify, one per claim and record. sat: some input of the record's ball violates
the claim; unsat: the claim holds on the ball. They speak of real arithmetic{binary32}.

instances.csv lists the VNN-LIB 1.0 properties (network, property, seconds), as VNN-COMP does. They have <= and >= only:
a sat at which the claim is just met refutes nothing. margins-N.onnx is patched.onnx with one more matrix behind its
logits, where a property compares differences of logits with a number.

Properties of retain claims are VNN-LIB 2.0 and speak of two networks: --network base=base.onnx
--network patched=patched.onnx.

Claims of other kinds are not here: {others}.
"""
_SPARE = "; the claims are about\nexecutions in binary32, of which unsat over the reals is no proof"


@dataclass(eq=False)
class _Folder:
    """What is to be written, by path within the folder."""

    files: dict[str, bytes] = field(default_factory=dict)
    instances: list[str] = field(default_factory=list)
    pairs: int = 0


def _problem(sources: Sources) -> tuple[Problem, LoadedModel]:
    """The files as claims are decided on, and the patched network's file."""
    base = load_network(sources.base_bytes, sources.base.name)
    patched = load_network(sources.patched_bytes, sources.patched.name)
    patch = None if sources.patch_bytes is None else parse_patch(sources.patch_bytes, "patch.json").patch
    forget, retain = (_rows(records) for records in (sources.forget, sources.retain))
    return Problem(base.network, patched.network, patch, sources.request.domain, forget, retain), patched


def _rows(records: Records | None) -> LabelledRows | None:
    return None if records is None else LabelledRows(records.x, records.y)


def _chosen(text: str, count: int) -> range:
    """The records of a range like ``0:10``.

    Raises:
        CertifyInputError: not of the form, or no record in it.

    """
    match = _RANGE.fullmatch(text)
    if match is None:
        message = f"--records: expected FIRST:END such as 0:10 (either may be left out), got {text}"
        raise CertifyInputError(message)
    first, end = int(match.group(1) or 0), int(match.group(2) or count)
    if first >= min(end, count):
        message = f"--records: no record in {text}, there are {count}"
        raise CertifyInputError(message)
    return range(first, min(end, count))


def _write_one(folder: _Folder, place: str, goals: Goals, record: int, model: tuple[bytes, LoadedModel]) -> str:
    """A property of the patched network, or of the same with margins; answers the path of its network."""
    name = f"{place}/record-{record}.vnnlib"
    try:
        folder.files[name] = property_text(goals, record).encode()
    except UnsupportedVersionError:
        longer, rows = with_margins(goals, record), margin_rows(goals, record)
        folder.files[name] = property_text(longer, 0).encode()
        data = margin_model(*model, rows, longer.network)
        known = [path for path, other in folder.files.items() if path.startswith(f"{place}/margins-") and other == data]
        network = known[0] if known else f"{place}/margins-{sum('/margins-' in path for path in folder.files)}.onnx"
        folder.files[network] = data
        return network
    folder.files["patched.onnx"] = model[0]
    return "patched.onnx"


def _write_claim(
    folder: _Folder,
    name: str,
    claim: Claim,
    problem: Problem,
    model: tuple[bytes, LoadedModel],
    options: argparse.Namespace,
) -> int:
    """The properties of one claim; answers how many."""
    goals, place = goals_of(problem, claim), f"{name}-{claim.kind}"
    records = _chosen(options.records, goals.records)
    for record in records:
        if claim.kind in _ONE_NETWORK:
            network = _write_one(folder, place, goals, record, model)
            folder.instances.append(f"{network},{place}/record-{record}.vnnlib,{options.timeout}")
        else:
            text = pair_property_text(problem.base, problem.patched, goals, record)
            folder.files[f"{place}/record-{record}.vnnlib"] = text.encode()
            folder.pairs += 1
    return len(records)


def _move_in_place(folder: _Folder, out: Path) -> None:
    """Write everything beside the target and move it there whole."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as name:
        made = Path(name) / "export"
        for path, data in folder.files.items():
            (made / path).parent.mkdir(parents=True, exist_ok=True)
            (made / path).write_bytes(data)
        made.replace(out)


def export_command(options: argparse.Namespace, progress: Progress) -> tuple[int, str, dict[str, object]]:
    """Run the verb.

    Returns:
        Exit code 0, text, and the object for ``--json``.

    Raises:
        CheckError: a file cannot be used.
        CertifyInputError: nothing to write, or the folder is taken.

    """
    if options.out.exists() and (not options.out.is_dir() or any(options.out.iterdir())):
        text = f"--out: {options.out} exists and is not an empty folder"
        raise CertifyInputError(text)
    sources = read_sources(options)
    problem, patched = _problem(sources)
    every = [(f"C{place + 1}", claim) for place, claim in enumerate(claims_of(sources.request, problem))]
    kinds = (*_ONE_NETWORK, *_TWO_NETWORKS)
    listed = [(name, claim) for name, claim in every if claim.kind in kinds and claim.arithmetic == options.arithmetic]
    if not listed:
        text = f"{options.request}: no claim of kind {', '.join(kinds)} in arithmetic {options.arithmetic}"
        raise CertifyInputError(text)
    folder, counts = _Folder(), dict[str, int]()
    for place, (name, claim) in enumerate(listed):
        progress("claims", place, len(listed))
        model = sources.patched_bytes, patched
        counts[f"{name}-{claim.kind}"] = _write_claim(folder, name, claim, problem, model, options)
    progress("claims", len(listed), len(listed))
    others = sorted({claim.kind for _, claim in every} - set(kinds))
    _add_common(folder, sources, others, options)
    _move_in_place(folder, options.out)
    lines = [f"{name}: {count} properties" for name, count in counts.items()]
    text = "\n".join([*lines, f"wrote {options.out}/ ({len(folder.files)} files; README.txt says how to read them)"])
    return 0, text, {"out": str(options.out), "properties": counts, "files": sorted(folder.files)}


def _add_common(folder: _Folder, sources: Sources, others: list[str], options: argparse.Namespace) -> None:
    """The networks of pairs, the list of instances and a word of explanation."""
    if folder.pairs:
        folder.files |= {"base.onnx": sources.base_bytes, "patched.onnx": sources.patched_bytes}
    if folder.instances:
        folder.files["instances.csv"] = ("\n".join(folder.instances) + "\n").encode()
    spare = "" if options.arithmetic == REAL else _SPARE
    text = _README.format(binary32=spare, others=", ".join(others) or "none")
    folder.files["README.txt"] = text.encode()
