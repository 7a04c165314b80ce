"""``patch.json``: the parameters of a patch, strict and canonical, enough to rebuild the patched network.

Source: certs/SPEC.md section 3; FORMATS section 1.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from prune_verify.checker.encoding import (
    Json,
    Members,
    canonical_json,
    format_binary32,
    parse_base64,
    parse_binary32,
    parse_digest,
    parse_json,
)
from prune_verify.checker.errors import LimitError, MalformedInputError, UnsupportedVersionError
from prune_verify.checker.patch import INPUT, Gate, Interval, JointPatch, LearnedPatch, Patch, ShiftPatch

__all__ = ["PatchFile", "disclosed", "emit_patch", "parse_patch"]

FORMAT_VERSION = 1
MOST_LABELS = 2**16
MOST_GATES = 2**17
_HEAD = ("formatVersion", "family", "baseNetwork", "labels", "site")
_FAMILIES = ("box", "class-cap", "learned", "linear-region")
_JOINT = ("forgottenClasses", "tau", "shift", "slack", "gates", "conflicts", "disclosed")
_MOST_LAYERS = 16
_MOST_WEIGHTS = 2**26


@dataclass(frozen=True, eq=False)
class PatchFile:
    """What ``patch.json`` says.

    Args:
        patch: the parameters.
        base_network: digest of the network that the patch is for.
        conflicts: retained records that the prover could not separate; a hint, counted again by the checker.

    """

    patch: Patch
    base_network: str
    conflicts: tuple[int, ...] = ()


def disclosed(patch: Patch, size: int) -> tuple[int, int]:
    """How much of the forgotten records a patch stores: coordinates, and bits (MATHS 4.1).

    Args:
        patch: the patch.
        size: number of coordinates n of the sites.

    Returns:
        For gates: the number of intervals, and 32 bits per edge, shift and end of a held margin, and ceil(log2 n) per
        interval. For a learned patch the
        bits of its parameters, an upper bound of what it can hold.

    """
    if isinstance(patch, LearnedPatch):
        return 0, 32 * sum(weight.size + bias.size for weight, bias in patch.layers)
    intervals = sum(len(gate.intervals) for gate in patch.gates)
    edges = sum(gate.literals for gate in patch.gates)
    more = patch.shifts.size if isinstance(patch, ShiftPatch) else 2 * len(patch.gates) if patch.holds else 0
    return intervals, 32 * (edges + more) + intervals * (size - 1).bit_length() if intervals else 0


def _edge(value: Json, path: str) -> np.float32 | None:
    return None if value is None else parse_binary32(value, path)


def _interval(value: Json, path: str) -> Interval:
    if not isinstance(value, list) or len(value) != 3 or isinstance(value[0], bool) or not isinstance(value[0], int):  # noqa: PLR2004 - coordinate and two edges
        raise MalformedInputError(path, "interval", "[coordinate, low or null, high or null]", repr(value)[:80])
    coordinate, low, high = value[0], _edge(value[1], path), _edge(value[2], path)
    if coordinate < 0 or (low is None and high is None) or (low is not None and high is not None and low > high):
        raise MalformedInputError(
            path, "interval", "an edge at least, low <= high, a coordinate from 0", repr(value)[:80]
        )
    return Interval(coordinate, low, high)


def _hold(fields: Members) -> tuple[np.float32, np.float32]:
    ends = fields.items("hold", most=2)
    if len(ends) != 2:  # noqa: PLR2004 - low and high
        raise MalformedInputError(fields.place("hold"), "margin to hold", "[low, high]", repr(ends)[:80])
    low, high = (parse_binary32(end, fields.place("hold")) for end in ends)
    return low, high


def _gate(value: Json, path: str, labels: int, forgotten: tuple[int, ...]) -> Gate:
    holds = isinstance(value, dict) and "hold" in value
    fields = Members(value, path, ("label", "gamma", "intervals", "records", *(("hold",) if holds else ())))
    label, gamma = fields.integer("label", most=labels - 1), fields.binary32("gamma")
    if label in forgotten:
        raise MalformedInputError(
            fields.place("label"), "label of a gate", "one that is not forgotten as a class", str(label)
        )
    if not gamma >= np.float32(2.0**-126):  # a subnormal slope may be flushed to 0, which opens the gate
        raise MalformedInputError(fields.place("gamma"), "slope of a gate", "at least 2^-126", str(gamma))
    places = fields.items("intervals", most=2**16)
    intervals = tuple(_interval(item, f"{fields.place('intervals')}/{i}") for i, item in enumerate(places))
    coordinates = [interval.coordinate for interval in intervals]
    if not intervals or any(a >= b for a, b in zip(coordinates, coordinates[1:], strict=False)):
        raise MalformedInputError(
            fields.place("intervals"), "gate", "at least one interval, ascending", f"{coordinates[:8]}"
        )
    return Gate(label, gamma, intervals, fields.integers("records"), _hold(fields) if holds else None)


def _gates(fields: Members, labels: int, forgotten: tuple[int, ...]) -> tuple[Gate, ...]:
    listed = fields.items("gates", most=MOST_GATES)
    return tuple(_gate(item, f"{fields.place('gates')}/{i}", labels, forgotten) for i, item in enumerate(listed))


def _sites(fields: Members) -> tuple[str, ...]:
    """What the gates read: ``input``, or a list that is not that alone (one spelling for one thing)."""
    if fields.raw("site") == INPUT:
        return (INPUT,)
    sites = fields.texts("site")
    if sites in ((), (INPUT,)):
        raise MalformedInputError(fields.place("site"), "sites", "input, or a list of others", repr(sites))
    return sites


def _joint(fields: Members, labels: int) -> JointPatch:
    forgotten = fields.integers("forgottenClasses", most=labels, greatest=labels - 1)
    gates, sites = _gates(fields, labels, forgotten), _sites(fields)
    family = fields.text("family")
    if (family == "box") != bool(gates) or len(forgotten) >= labels or not (gates or forgotten):
        raise MalformedInputError(
            fields.place("family"), "family", "box with gates, class-cap with classes alone", family
        )
    tau, shift, slack = (fields.binary32(name) for name in ("tau", "shift", "slack"))
    patch = JointPatch(labels, forgotten, tau, shift, slack, gates, sites)
    if patch.holds:
        if forgotten or tau != 0 or shift != 0 or any(gate.hold is None for gate in gates):
            expected = "every gate with hold, no forgotten class, tau and shift 0"
            raise MalformedInputError(fields.place("gates"), "gates that hold margins", expected, "something else")
    elif not tau > 0 or shift < 0 or slack < 0:
        raise MalformedInputError(
            fields.place("tau"), "constants of the head", "tau above 0, shift and slack from 0", str(tau)
        )
    if not gates and (shift != 0 or slack != 0 or sites != (INPUT,)):
        raise MalformedInputError(fields.place("shift"), "constants of the head", "0 without gates", str(shift))
    return patch


def _shift(fields: Members, labels: int) -> ShiftPatch:
    gates = _gates(fields, labels, ())
    if not gates or any(gate.hold is not None for gate in gates):
        raise MalformedInputError(fields.place("gates"), "gates of a shift", "at least one, without hold", "others")
    path = fields.place("shifts")
    return ShiftPatch(labels, gates, _sites(fields), _floats(fields.raw("shifts"), path, (len(gates), labels)))


def _floats(value: Json, path: str, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    data = parse_base64(value, path)
    if len(data) != 4 * int(np.prod(shape, dtype=np.int64)):
        raise MalformedInputError(path, "float32 values", str(shape), f"{len(data)} bytes")
    array = np.frombuffer(data, dtype="<f4").astype(np.float32).reshape(shape)
    if not np.isfinite(array).all():
        raise MalformedInputError(path, "float32 values", "finite numbers", "NaN or infinity")
    array.setflags(write=False)
    return array


def _learned(fields: Members, labels: int) -> LearnedPatch:
    listed, layers = fields.items("layers", most=_MOST_LAYERS), []
    for place, item in enumerate(listed):
        layer = Members(item, f"{fields.place('layers')}/{place}", ("weight", "shape", "bias"))
        shape = layer.items("shape", most=2)
        if len(shape) != 2 or any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in shape):  # noqa: PLR2004 - a matrix
            raise MalformedInputError(layer.place("shape"), "shape of a layer", "[out, in]", repr(shape)[:80])
        out, width = (n for n in shape if isinstance(n, int))
        if out * width > _MOST_WEIGHTS:
            raise LimitError(
                layer.place("shape"), "size of a layer", f"at most {_MOST_WEIGHTS} weights", f"{out}x{width}"
            )
        weight = _floats(layer.raw("weight"), layer.place("weight"), (out, width))
        layers.append((weight, _floats(layer.raw("bias"), layer.place("bias"), (out,))))
    if not layers:
        raise MalformedInputError(fields.place("layers"), "learned patch", "at least one layer", "none")
    return LearnedPatch(labels, tuple(layers))


def parse_patch(data: bytes, path: str) -> PatchFile:
    """Read ``patch.json``.

    Args:
        data: the file.
        path: its name, for errors.

    Raises:
        MalformedInputError: not of the closed form, or not canonical.
        UnsupportedVersionError: another version or family.
        LimitError: too large.

    """
    value = parse_json(data, path, canonical=True)
    family = value.get("family") if isinstance(value, dict) else None
    if family not in _FAMILIES:
        raise UnsupportedVersionError(f"{path}/family", "family", ", ".join(_FAMILIES), repr(family)[:40])
    own = {"learned": ("layers",), "linear-region": ("gates", "shifts", "disclosed")}.get(family, _JOINT)
    fields = Members(value, path, (*_HEAD, *own))
    if fields.integer("formatVersion") != FORMAT_VERSION:
        raise UnsupportedVersionError(fields.place("formatVersion"), "version", str(FORMAT_VERSION), "another")
    labels = fields.integer("labels", least=2, most=MOST_LABELS)
    base = parse_digest(fields.raw("baseNetwork"), fields.place("baseNetwork"))
    if family == "learned":
        fields.text("site", among=(INPUT,))
        return PatchFile(_learned(fields, labels), base)
    said = fields.members("disclosed", ("coordinates", "bits"))
    said.integer("coordinates")
    said.integer("bits")
    if family == "linear-region":
        return PatchFile(_shift(fields, labels), base)
    return PatchFile(_joint(fields, labels), base, fields.integers("conflicts"))


def require_disclosed(data: bytes, path: str, patch: Patch, size: int) -> None:
    """Refuse a file that understates what the patch discloses (T3).

    Raises:
        MalformedInputError: the numbers are not those of :func:`disclosed`.

    """
    value = parse_json(data, path)
    said = value.get("disclosed") if isinstance(value, dict) else None
    coordinates, bits = disclosed(patch, size)
    if not isinstance(patch, LearnedPatch) and said != {"coordinates": coordinates, "bits": bits}:
        raise MalformedInputError(
            f"{path}/disclosed", "what the gates disclose", f"{coordinates}, {bits}", repr(said)[:80]
        )


def _base64(array: npt.NDArray[np.float32]) -> str:
    return base64.b64encode(array.astype("<f4").tobytes()).decode()


def _emitted_gate(gate: Gate) -> Json:
    def edge(value: np.float32 | None) -> Json:
        return None if value is None else format_binary32(value)

    intervals: list[Json] = [[i.coordinate, edge(i.low), edge(i.high)] for i in gate.intervals]
    hold: dict[str, Json] = {} if gate.hold is None else {"hold": [format_binary32(end) for end in gate.hold]}
    return {
        **hold,
        "label": gate.label,
        "gamma": format_binary32(gate.gamma),
        "intervals": intervals,
        "records": list(gate.records),
    }


def emit_patch(file: PatchFile, size: int) -> bytes:
    """The canonical bytes of ``patch.json``.

    Args:
        file: the patch, the digest of its base and the conflicts.
        size: number of coordinates of the sites, for what the gates disclose.

    """
    patch = file.patch
    value: dict[str, Json] = {
        "formatVersion": FORMAT_VERSION,
        "family": patch.family,
        "baseNetwork": file.base_network,
        "labels": patch.labels,
        "site": INPUT,
    }
    if isinstance(patch, LearnedPatch):
        value["layers"] = [
            {"weight": _base64(weight), "shape": list(weight.shape), "bias": _base64(bias)}
            for weight, bias in patch.layers
        ]
        return canonical_json(value)
    coordinates, bits = disclosed(patch, size)
    value |= {
        "site": INPUT if patch.sites == (INPUT,) else list(patch.sites),
        "gates": [_emitted_gate(gate) for gate in patch.gates],
        "disclosed": {"coordinates": coordinates, "bits": bits},
    }
    if isinstance(patch, ShiftPatch):
        return canonical_json(value | {"shifts": _base64(patch.shifts)})
    value |= {
        "forgottenClasses": list(patch.forgotten_classes),
        "tau": format_binary32(patch.tau),
        "shift": format_binary32(patch.shift),
        "slack": format_binary32(patch.slack),
        "conflicts": list(file.conflicts),
    }
    return canonical_json(value)
