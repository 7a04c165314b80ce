"""The owner's calls: find a patch, prove what it does."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Unpack, cast

from prune_verify.api import options as keywords
from prune_verify.api.errors import RefusalError, refusals
from prune_verify.api.inputs import Inputs
from prune_verify.api.results import Files, Patched, Statement, claims_of
from prune_verify.api.words import known_only, parsed
from prune_verify.progress import Progress
from prune_verify.repair_options import add_repair, is_stream
from prune_verify.verb_options import add_certify, add_request

if TYPE_CHECKING:
    from prune_verify.api.options import CertifyOptions, ModelLike, PathLike, RecordsLike, RepairOptions

__all__ = ["certify", "repair"]

_OF_REQUESTS = frozenset(keywords.RequestOptions.__annotations__)
_OF_SETS = ("forget", "retain", "label_column", "encoding")


def repair(
    network: ModelLike,
    *,
    out: PathLike,
    forget: RecordsLike | None = None,
    **options: Unpack[RepairOptions],
) -> Patched:
    """Find a patch with which the network forgets records or labels; nothing is proved yet.

    Args:
        network: the base: an ONNX file or its bytes, or a PyTorch module, which is exported (in evaluation mode, on a
            copy) and compared with its file on a sample.
        out: folder for ``patched.onnx``, ``patch.json``, ``request.json``, and ``inputs/`` with what was in memory.
        forget: the records to forget: a file, (x, y) of arrays or tensors [records, *row] and [records], a
            ``DataLoader`` or a ``Dataset``.
        options: see :class:`~prune_verify.api.options.RepairOptions`; most of all ``retain``.

    Returns:
        The patched network, with what it costs and what is in conflict.

    Raises:
        RefusalError: something cannot be used (exit code 2), or no patch meets the threat model (3).
        TypeError: an option that there is not.

    """
    known_only("repair", options, keywords.RepairOptions.__annotations__)
    given: dict[str, object] = {**options, "forget": forget}
    folder, example, shown = Path(out), given.pop("example", None), bool(given.pop("progress", False))
    inputs = Inputs(folder / "inputs")
    with refusals():
        given = inputs.records(given)
        base = inputs.network(network, "base", example)
        words = parsed("repair", add_repair, [base], given | {"out": folder})
        if is_stream(words):
            from prune_verify.repair.stream_command import stream_command as command
        else:
            from prune_verify.repair.command import repair_command as command

        with Progress(enabled=shown) as progress:
            _, text, found = command(words, progress)
    copies = is_stream(words) or words.shifts is not None
    return _patched((found, text), given, inputs, base, copies=copies)


def _patched(
    told: tuple[Mapping[str, object], str], given: Mapping[str, object], inputs: Inputs, base: Path, *, copies: bool
) -> Patched:
    """The result of repair, with the sets that certify is to take: where there are copies, those that repair wrote."""
    (found, text), folder = told, inputs.folder.parent
    sets = _sets(given)
    if copies:
        sets |= {
            name: str(folder / f"{name}.npz") for name in ("forget", "retain") if (folder / f"{name}.npz").is_file()
        }
    return Patched(
        files=Files(base, folder / "patched.onnx", **sets),
        patch=folder / "patch.json",
        request=folder / "request.json",
        family=str(found["family"]),
        gates=cast("int", found["gates"]),
        disclosed_bits=cast("int", found["disclosedBits"]),
        conflicts=tuple(cast("list[int]", found["conflicts"])),
        notes=(*inputs.notes, *cast("list[str]", found.get("notes", []))),
        text="\n".join([*inputs.notes, text]),
        data=found,
    )


def certify(patched: Patched | ModelLike, **options: Unpack[CertifyOptions]) -> Statement:
    """Prove what a patched network does, and write a statement that the checker accepts.

    A network that another tool has changed, as a file or a PyTorch module, needs ``base``, ``out`` and its record sets;
    what is asked of it is the ``request``, or made of the options of ``prune-verify request``.

    Args:
        patched: what :func:`repair` gave back, or a patched network of other making.
        options: see :class:`~prune_verify.api.options.CertifyOptions`.

    Returns:
        The statement, with counts of what was proved; refuted and unknown claims are no exception but counted in it.

    Raises:
        RefusalError: something cannot be used (exit code 2), or the checker refuses the result (1).
        TypeError: an option that there is not.

    """
    known_only("certify", options, keywords.CertifyOptions.__annotations__)
    given: dict[str, object] = dict(options)
    if isinstance(patched, Patched):
        files = patched.files
        given = {
            **{name: getattr(files, name) for name in _OF_SETS},
            "base": files.base,
            "request": patched.request,
            "out": files.patched.parent,
            **given,
        }
        network: ModelLike = files.patched
    else:
        network = patched
    for name in ("base", "out"):
        if given.get(name) is None:
            text = f"{name}: needed, because the patched network is no result of repair"
            raise RefusalError(text, "E_USAGE")
    return _certified(network, given)


def _certified(network: ModelLike, given: dict[str, object]) -> Statement:
    folder, example, shown = Path(str(given["out"])), given.pop("example", None), bool(given.pop("progress", False))
    inputs = Inputs(folder / "inputs")
    with refusals():
        given = inputs.records(given)
        base = inputs.network(cast("ModelLike", given.pop("base")), "base", example)
        places = [base, inputs.network(network, "patched", example)]
        asked = {name: given.pop(name) for name in _OF_REQUESTS & set(given)}
        if given.get("request") is None:
            given["request"] = _requested(places, {**asked, **_sets(given)}, folder, inputs)
        elif asked:
            text = f"{', '.join(sorted(asked))}: of a new request; the request says so already"
            raise RefusalError(text, "E_USAGE")
        from prune_verify.certify.command import certify_command

        with Progress(enabled=shown) as progress:
            code, text, found = certify_command(parsed("certify", add_certify, places, given), progress)
    refuted = cast("list[dict[str, str]]", found["refuted"])
    return Statement(
        path=Path(str(found["statement"])),
        files=Files(places[0], places[1], **_sets(given)),
        claims=claims_of(found["claims"]),
        refuted=tuple((one["claim"], int(one["record"])) for one in refuted),
        exit_code=code,
        notes=tuple(inputs.notes),
        text="\n".join([*inputs.notes, text]),
        data=found,
    )


def _sets(given: Mapping[str, object]) -> dict[str, str | None]:
    return {name: None if given.get(name) is None else str(given[name]) for name in _OF_SETS}


def _requested(places: list[Path], given: Mapping[str, object], folder: Path, inputs: Inputs) -> Path:
    """Write what is asked of a network of other making."""
    from prune_verify.certify.request_command import request_command

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "request.json"
    _, _, found = request_command(parsed("request", add_request, places, {**given, "out": path}))
    inputs.notes += cast("list[str]", found["notes"])
    return path
