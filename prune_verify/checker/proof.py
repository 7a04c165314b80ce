"""The evidence of a claim that rests on relaxation: choices, slopes, splits and multipliers in one small binary file.

Nothing in it is believed: all of it are hints with which the checker computes its own bounds. One spelling::

    prune-verify/proof/v2 <SHA-256 in hex of everything after this line> LF
    {"arithmetic":..,"arrays":[{"dtype":..,"name":..,"shape":[..]},..],"kind":..,"method":..,"network":..,
     "records":..} LF
    the arrays one after the other, little-endian, nothing between and nothing after

The header is canonical JSON. ``network`` is the digest of the network that was bounded. What a goal, an atom, a
combination and a step are is said in :mod:`prune_verify.checker.goals` and :mod:`prune_verify.checker.trees`. The
arrays, in this order, all there, each a list:

``choices`` i4       [goals], or [0] for all 0: an atom, ``atoms + k`` for combination k, or -1: not proved by a bound
``combinations`` f4  [combinations * atoms]: factors from 0 to 1, multiples of 2^-16
``hinted`` i4        ascending goals without a tree that have slopes of their own: rows 0, 1, .. of the slopes
``smt`` i4           ascending records that rest on z3
``trees`` i4         ascending goals that have a tree
``steps`` i4         [3 * steps]: the trees one after the other, each from the root, first child first
``cuts`` f4          where inputs are cut
``multipliers`` f4   for every leaf in order, for every ReLU split above it from the root: what is added to L; or [0]

then for ``Relu`` nodes, ascending, ``active/NODE`` i4 [n]: the ascending flat places of the neurons that have
slopes, and ``slopes/NODE`` f4 [sets, n]: any finite numbers. NODE counts the nodes of the per-row form.

Source: MATHS 5.2 and 5.3; certs/SPEC.md section 5.4; STYLE (parse . emit = identity).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod

import numpy as np
import numpy.typing as npt

from prune_verify.checker.encoding import Json, Members, canonical_json, parse_json, sha256_hex
from prune_verify.checker.errors import LimitError, MalformedInputError

__all__ = ["MAX_PROOF_BYTES", "Proof", "emit", "parse"]

MAX_PROOF_BYTES = 2**28
_MAGIC = b"prune-verify/proof/v2 "
_MAX_HEADER_BYTES = 2**18
_MAX_ARRAYS = 1024
_MAX_RANK = 2
_MAX_DIGITS = 9
_DIGEST_LENGTH = 64
_WORD = 4
_STEP = 3
_GRID = 2.0**16
_TYPES = {"i4": "<i4", "f4": "<f4"}
_LISTS = {
    "choices": "i4", "combinations": "f4", "hinted": "i4", "smt": "i4",
    "trees": "i4", "steps": "i4", "cuts": "f4", "multipliers": "f4",
}  # fmt: skip

Integers = npt.NDArray[np.int32]
Singles = npt.NDArray[np.float32]
Arrays = dict[str, npt.NDArray[np.float32 | np.int32]]


def _no_integers() -> Integers:
    return np.empty(0, dtype=np.int32)


def _no_singles() -> Singles:
    return np.empty(0, dtype=np.float32)


@dataclass(frozen=True, eq=False)
class Proof:
    """What the prover hands over for one claim.

    Args:
        kind: of the claim.
        arithmetic: of the claim.
        method: ``relaxation`` or ``relaxation+smt``.
        network: digest of the network that is bounded.
        records: number of records of the claim.
        choices: int32 [goals] or [0].
        combinations: float32 [combinations * atoms].
        hinted: int32: ascending goals.
        smt: int32: ascending records.
        trees: int32: ascending goals.
        steps: int32 [3 * steps].
        cuts: float32.
        multipliers: float32.
        active: by ``Relu`` node: int32 [n], ascending.
        slopes: by ``Relu`` node: float32 [sets, n].

    """

    kind: str
    arithmetic: str
    method: str
    network: str
    records: int
    choices: Integers = field(default_factory=_no_integers)
    combinations: Singles = field(default_factory=_no_singles)
    hinted: Integers = field(default_factory=_no_integers)
    smt: Integers = field(default_factory=_no_integers)
    trees: Integers = field(default_factory=_no_integers)
    steps: Integers = field(default_factory=_no_integers)
    cuts: Singles = field(default_factory=_no_singles)
    multipliers: Singles = field(default_factory=_no_singles)
    active: dict[int, Integers] = field(default_factory=dict)
    slopes: dict[int, Singles] = field(default_factory=dict)

    @property
    def sets(self) -> int:
        """How many sets of slopes there are."""
        return max((len(values) for values in self.slopes.values()), default=0)


def _arrays(proof: Proof) -> dict[str, Integers | Singles]:
    """The arrays by name, in the order of the file."""
    found: dict[str, Integers | Singles] = {name: getattr(proof, name) for name in _LISTS}
    for node in sorted(proof.slopes):
        found |= {f"active/{node}": proof.active[node], f"slopes/{node}": proof.slopes[node]}
    return found


def _dtype(name: str) -> str:
    return _LISTS.get(name, "f4" if name.startswith("slopes/") else "i4")


def emit(proof: Proof) -> bytes:
    """The file of a proof."""
    arrays = _arrays(proof)
    listed: list[Json] = [
        {"dtype": _dtype(name), "name": name, "shape": [*array.shape]} for name, array in arrays.items()
    ]
    header: dict[str, Json] = {
        "arithmetic": proof.arithmetic,
        "arrays": listed,
        "kind": proof.kind,
        "method": proof.method,
        "network": proof.network,
        "records": proof.records,
    }
    values = [np.ascontiguousarray(array, _TYPES[_dtype(name)]).tobytes() for name, array in arrays.items()]
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
    proof = _proof(header, arrays, path)
    _require_consistent(proof, path)
    if emit(proof) != data:  # the order of the arrays, and numbers with two spellings
        raise MalformedInputError(path, "canonical form", "arrays in their order", "another order")
    return proof


def _proof(header: Members, arrays: Arrays, path: str) -> Proof:
    """The proof with the arrays of the file."""
    integers = {name: _integers(arrays, name, path) for name, kind in _LISTS.items() if kind == "i4"}
    singles = {name: _singles(arrays, name, path) for name, kind in _LISTS.items() if kind == "f4"}
    active, slopes = _by_node(arrays, path)
    return Proof(
        kind=header.text("kind"),
        arithmetic=header.text("arithmetic"),
        method=header.text("method"),
        network=header.digest("network"),
        records=header.integer("records"),
        choices=integers["choices"],
        combinations=singles["combinations"],
        hinted=integers["hinted"],
        smt=integers["smt"],
        trees=integers["trees"],
        steps=integers["steps"],
        cuts=singles["cuts"],
        multipliers=singles["multipliers"],
        active=active,
        slopes=slopes,
    )


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


def _read(header: Members, values: bytes, path: str) -> Arrays:
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
    found: Arrays = {}
    start = 0
    for name, (dtype, shape) in declared.items():
        part = np.frombuffer(values, _TYPES[dtype], prod(shape), start) if sizes[name] else np.empty(0, _TYPES[dtype])
        found[name] = part.reshape(shape)
        start += sizes[name]
    return found


def _integers(arrays: Arrays, name: str, path: str) -> Integers:
    found = arrays.pop(name, None)
    if found is None or found.dtype.kind != "i" or found.ndim != 1:
        raise MalformedInputError(f"{path}/{name}", "form", "a list of i4", "something else")
    return found.astype(np.int32)


def _singles(arrays: Arrays, name: str, path: str, rank: int = 1) -> Singles:
    found = arrays.pop(name, None)
    if found is None or found.dtype.kind != "f" or found.ndim != rank or not bool(np.isfinite(found).all()):
        raise MalformedInputError(f"{path}/{name}", "form", "finite f4", "something else")
    return found.astype(np.float32)


def _by_node(arrays: Arrays, path: str) -> tuple[dict[int, Integers], dict[int, Singles]]:
    """What is left after the lists: places and slopes of ``Relu`` nodes, in pairs."""
    active, slopes = dict[int, Integers](), dict[int, Singles]()
    while arrays:
        name = next(iter(arrays))
        digits = name.removeprefix("active/")
        if name == digits or not digits.isdecimal() or not digits.isascii() or len(digits) > _MAX_DIGITS:
            raise MalformedInputError(path, "arrays", f"{', '.join(_LISTS)}, active/NODE, slopes/NODE", name)
        node = int(digits)
        active[node] = _integers(arrays, name, path)
        slopes[node] = _singles(arrays, f"slopes/{digits}", path, rank=2)
    return active, slopes


def _refusal(path: str, name: str, expected: str) -> MalformedInputError:
    return MalformedInputError(f"{path}/{name}", name.partition("/")[0], expected, "something else")


def _ascending(values: Integers) -> bool:
    return not values.size or (int(values[0]) >= 0 and bool((values[1:] > values[:-1]).all()))


def _require_consistent(proof: Proof, path: str) -> None:
    for name, listed in (("hinted", proof.hinted), ("smt", proof.smt), ("trees", proof.trees)):
        if not _ascending(listed):
            raise _refusal(path, name, "ascending indices")
    if len(proof.hinted) > proof.sets or np.intersect1d(proof.hinted, proof.trees).size:
        raise _refusal(path, "hinted", "goals without a tree, no more than sets of slopes")
    if bool((proof.choices < -1).any()):
        raise _refusal(path, "choices", "at least -1")
    factors = proof.combinations.astype(np.float64) * _GRID
    if bool((factors != np.floor(factors)).any() or (factors < 0).any() or (factors > _GRID).any()):
        raise _refusal(path, "combinations", "multiples of 2^-16 from 0 to 1")
    if len(proof.steps) % _STEP:
        raise _refusal(path, "steps", "three numbers each")
    for node, values in proof.slopes.items():
        if not values.size or values.shape != (proof.sets, len(proof.active[node])):
            raise _refusal(path, f"slopes/{node}", "one row per set, one number per active neuron")
        if not _ascending(proof.active[node]):
            raise _refusal(path, f"active/{node}", "ascending places")
