"""The evidence of a claim that rests on relaxation: slopes and choices of the prover, in one small binary file.

Nothing in it is believed: a slope is a hint with which the checker computes its own bound. The form has one spelling::

    prune-verify/proof/v1 <SHA-256 in hex of everything after this line> LF
    {"arithmetic":..,"arrays":[{"dtype":..,"name":..,"shape":[..]},..],"kind":..,"method":..,"network":..,
     "records":..} LF
    the arrays one after the other, little-endian, nothing between and nothing after

The header is canonical JSON. ``network`` is the digest of the network that was bounded. The arrays, in this order:
``competitors`` i4 [records] (forget claims; -1: not proved by a bound), ``hinted`` i4 [n] (ascending: records
with slopes of their own; the others take rule crown), ``smt`` i4 [m] (ascending: records that rest on z3), and for
``Relu`` nodes, ascending, ``slopes/NODE`` f4 [n, (bounds,) *shape] in [0, 1]. NODE counts the nodes of the per-row
form.

Source: MATHS 5.2 and 5.3; STYLE (parse . emit = identity).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
import numpy.typing as npt

from prune_verify.checker.encoding import Json, Members, canonical_json, parse_json, sha256_hex
from prune_verify.checker.errors import LimitError, MalformedInputError

__all__ = ["MAX_PROOF_BYTES", "Proof", "emit", "parse"]

MAX_PROOF_BYTES = 2**28
_MAGIC = b"prune-verify/proof/v1 "
_MAX_HEADER_BYTES = 2**18
_MAX_ARRAYS = 1024
_MAX_RANK = 8
_MAX_DIGITS = 9
_DIGEST_LENGTH = 64
_WORD = 4
_SLOPES = "slopes/"
_TYPES = {"i4": "<i4", "f4": "<f4"}

Integers = npt.NDArray[np.int32]
Slopes = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Proof:
    """What the prover hands over for one claim.

    Args:
        kind: of the claim: ``forget`` or ``retain_close``.
        arithmetic: of the claim.
        method: ``relaxation`` or ``relaxation+smt``.
        network: digest of the network that is bounded: the patched network, or the patch alone for ``retain_close``.
        records: number of records of the claim.
        competitors: int32 [records], or [0] where no competitor is meant.
        hinted: int32 [n]: ascending indices of records with slopes.
        smt: int32 [m]: ascending indices of records that rest on z3.
        slopes: by ``Relu`` node: float32 [n, ...] in [0, 1].

    """

    kind: str
    arithmetic: str
    method: str
    network: str
    records: int
    competitors: Integers
    hinted: Integers
    smt: Integers
    slopes: dict[int, Slopes]


def _arrays(proof: Proof) -> dict[str, npt.NDArray[np.generic]]:  # type: ignore[explicit-any] # numpy's own alias has it
    """The arrays by name, in the order of the file."""
    found: dict[str, npt.NDArray[np.generic]] = {  # type: ignore[explicit-any] # numpy's own alias has it
        "competitors": proof.competitors,
        "hinted": proof.hinted,
        "smt": proof.smt,
    }
    return found | {f"{_SLOPES}{node}": proof.slopes[node] for node in sorted(proof.slopes)}


def emit(proof: Proof) -> bytes:
    """The file of a proof."""
    arrays = _arrays(proof)
    listed: list[Json] = [
        {"dtype": "f4" if name.startswith(_SLOPES) else "i4", "name": name, "shape": [*array.shape]}
        for name, array in arrays.items()
    ]
    header: dict[str, Json] = {
        "arithmetic": proof.arithmetic,
        "arrays": listed,
        "kind": proof.kind,
        "method": proof.method,
        "network": proof.network,
        "records": proof.records,
    }
    values = [np.ascontiguousarray(a, "<f4" if n.startswith(_SLOPES) else "<i4").tobytes() for n, a in arrays.items()]
    body = canonical_json(header) + b"\n" + b"".join(values)
    return _MAGIC + sha256_hex(body).encode() + b"\n" + body


def parse(data: bytes, path: str, *, max_bytes: int = MAX_PROOF_BYTES) -> Proof:
    """Read a proof.

    Args:
        data: the file.
        path: its name, for errors.
        max_bytes: refuse more than this.

    Raises:
        MalformedInputError: not of the form above; any changed byte is.
        LimitError: too long.

    """
    if len(data) > max_bytes:
        raise LimitError(path, "size of a proof", f"at most {max_bytes} bytes", str(len(data)))
    body = _opened(data, path)
    end = body.find(b"\n", 0, _MAX_HEADER_BYTES)
    if end < 0:
        raise MalformedInputError(path, "form", f"a header line of at most {_MAX_HEADER_BYTES} bytes", "none")
    header = Members(
        parse_json(body[:end], path, max_bytes=_MAX_HEADER_BYTES, canonical=True),
        path,
        ("arithmetic", "arrays", "kind", "method", "network", "records"),
    )
    arrays = _read(header, body[end + 1 :], path)
    proof = Proof(
        kind=header.text("kind"),
        arithmetic=header.text("arithmetic"),
        method=header.text("method"),
        network=header.digest("network"),
        records=header.integer("records"),
        competitors=_integers(arrays, "competitors", path),
        hinted=_integers(arrays, "hinted", path),
        smt=_integers(arrays, "smt", path),
        slopes={_node(name, path): _slopes(values, f"{path}/{name}") for name, values in arrays.items()},
    )
    _require_consistent(proof, path)
    if emit(proof) != data:  # the order of the arrays, and numbers with two spellings
        raise MalformedInputError(path, "canonical form", "arrays in their order", "another order")
    return proof


def _opened(data: bytes, path: str) -> bytes:
    """What follows the first line, which names its digest."""
    start = len(_MAGIC) + _DIGEST_LENGTH
    if data[: len(_MAGIC)] != _MAGIC or data[start : start + 1] != b"\n":
        raise MalformedInputError(path, "form", "the first line of a proof", ascii(data[: len(_MAGIC)]))
    body = data[start + 1 :]
    digest = sha256_hex(body)
    if data[len(_MAGIC) : start] != digest.encode():
        raise MalformedInputError(path, "digest of the content", digest, ascii(data[len(_MAGIC) : start]))
    return body


def _read(header: Members, values: bytes, path: str) -> dict[str, npt.NDArray[np.float32 | np.int32]]:
    """The arrays by name; their declared sizes are compared with what is there before anything is allocated."""
    declared: dict[str, tuple[str, tuple[int, ...]]] = {}
    for place, item in enumerate(header.items("arrays", most=_MAX_ARRAYS)):
        member = Members(item, f"{path}/arrays/{place}", ("dtype", "name", "shape"))
        lengths = member.items("shape", most=_MAX_RANK)
        least = 0 if len(lengths) == 1 else 1  # an empty list is a form of its own; an empty table has many
        shape = tuple(
            n for n in lengths if isinstance(n, int) and not isinstance(n, bool) and least <= n <= len(values)
        )
        name = member.text("name")
        if len(shape) != len(lengths) or name in declared:
            raise MalformedInputError(f"{path}/arrays/{place}", "form", "a new name and lengths within the file", name)
        declared[name] = member.text("dtype", among=tuple(_TYPES)), shape
    sizes = {name: prod(shape) * _WORD for name, (_, shape) in declared.items()}
    if sum(sizes.values()) != len(values):
        raise MalformedInputError(path, "length of the arrays", str(sum(sizes.values())), str(len(values)))
    found: dict[str, npt.NDArray[np.float32 | np.int32]] = {}
    start = 0
    for name, (dtype, shape) in declared.items():
        part = np.frombuffer(values, _TYPES[dtype], prod(shape), start) if sizes[name] else np.empty(0, _TYPES[dtype])
        found[name] = part.reshape(shape)
        start += sizes[name]
    return found


def _integers(arrays: dict[str, npt.NDArray[np.float32 | np.int32]], name: str, path: str) -> Integers:
    found = arrays.pop(name, None)
    if found is None or found.dtype.kind != "i" or found.ndim != 1:
        raise MalformedInputError(f"{path}/{name}", "form", "a list of i4", "none")
    return found.astype(np.int32)


def _node(name: str, path: str) -> int:
    digits = name.removeprefix(_SLOPES)
    if not name.startswith(_SLOPES) or not digits.isdecimal() or not digits.isascii() or len(digits) > _MAX_DIGITS:
        raise MalformedInputError(path, "arrays", "competitors, hinted, smt and slopes/NODE", name)
    return int(digits)


def _slopes(values: npt.NDArray[np.float32 | np.int32], path: str) -> Slopes:
    if values.dtype.kind != "f" or not bool(((values >= 0) & (values <= 1)).all()):
        raise MalformedInputError(path, "slopes", "f4 in [0, 1]", "something else")
    return values.astype(np.float32)


def _require_consistent(proof: Proof, path: str) -> None:
    for name, listed in (("hinted", proof.hinted), ("smt", proof.smt)):
        ends = listed.size and (int(listed[0]) < 0 or int(listed[-1]) >= proof.records)
        if ends or not bool((listed[1:] > listed[:-1]).all()):
            raise MalformedInputError(f"{path}/{name}", "records", "ascending indices of records", "something else")
    if proof.competitors.size not in (0, proof.records) or bool((proof.competitors < -1).any()):
        raise MalformedInputError(f"{path}/competitors", "competitors", "one per record, or none", "something else")
    for node, values in proof.slopes.items():
        if values.ndim < 1 or len(values) != len(proof.hinted) or not len(values):
            raise MalformedInputError(f"{path}/{_SLOPES}{node}", "slopes", "one row per hinted record", "another count")
