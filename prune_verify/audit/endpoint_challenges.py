"""Challenges: fresh inputs that the endpoint cannot foresee, drawn where claims speak and where users ask.

Each query has a random generator of its own, keyed by HMAC-SHA256 of the secret seed and the query's number: what
earlier queries show says nothing about later ones, and a resumed audit draws the same ones. A candidate that the
certified network cannot be held to (its answer is within rounding of a tie) is passed over and another one drawn.

Kinds: ``forget`` (the certified ball of a forget record, or the box of its gate), ``class`` (inputs that the base
answers with a forgotten class), ``retained`` (the ball of a retained record), ``elsewhere``.

Source: certs/SPEC.md section 10.2; THREATS T1, T9, T10.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from prune_verify.audit.endpoint_answers import Expected, Judge, Suppressed
from prune_verify.audit.endpoint_grid import Grid
from prune_verify.audit.endpoint_ground import Box, Ground, Rows, ball, domain_box
from prune_verify.checker.claim import LabelledRows, strict_answers
from prune_verify.checker.network import evaluate

__all__ = ["KINDS", "PROBE", "REGIONS", "Challenge", "Deck", "counts_of_kinds"]

KINDS = ("forget", "class", "retained", "elsewhere")
REGIONS = ("forget", "class")  # the kinds that the verdict demands a bound for
PROBE = 2**62
_ORDER = 2**62 + 1
_TAG = b"prune-verify/audit/v1\0"
_TRIES = 64
_POOL = 4096


@dataclass(frozen=True, eq=False)
class Challenge:
    """One query, with what the certified network answers.

    Args:
        index: of the query.
        kind: of :data:`KINDS`.
        mode: how it was drawn.
        x: float32 [*input_shape].
        expected: the certified answer.
        telling: the base's answer would be a deviation here.

    """

    index: int
    kind: str
    mode: str
    x: Rows
    expected: Expected
    telling: bool


@dataclass(frozen=True, eq=False)
class _Candidate:
    x: Rows
    mode: str
    suppressed: Suppressed | None = None
    label: int | None = None  # that the base has to answer


def counts_of_kinds(queries: int, shares: tuple[Fraction, Fraction, Fraction], ground: Ground) -> dict[str, int]:
    """How many queries of each kind: the share of the regions is split evenly between those that there are.

    Args:
        queries: all of them.
        shares: of forget regions, retained regions, elsewhere; what a kind cannot have goes to ``elsewhere``.
        ground: what there is.

    Returns:
        Counts that sum to ``queries``.

    """
    there = [
        kind for kind, has in (("forget", bool(ground.held or ground.gates)), ("class", bool(ground.classes))) if has
    ]
    total = sum(shares)
    wished = {kind: queries * shares[0] / total / len(there) for kind in there}
    if ground.retain is not None and ground.retained_radius is not None:
        wished["retained"] = queries * shares[1] / total
    counts = {kind: int(value) for kind, value in wished.items()}
    return counts | {"elsewhere": queries - sum(counts.values())}


class Deck:
    """All challenges of one audit, by their numbers.

    Args:
        ground: what they are drawn from.
        judge: says what the certified network answers.
        seed: secret until the audit is over.
        counts: how many of each kind.

    """

    def __init__(self, ground: Ground, judge: Judge, seed: bytes, counts: Mapping[str, int]) -> None:
        self._ground, self._judge, self._seed = ground, judge, seed
        self._inside = domain_box(ground.domain, ground.patched.input_shape)
        kinds = np.repeat(np.arange(len(KINDS)), [counts.get(kind, 0) for kind in KINDS])
        self._kinds: npt.NDArray[np.int64] = self._generator(_ORDER).permutation(kinds)
        self._pools = {claim.label: self._pool(claim.label) for claim in ground.classes}
        known = [rows.flat() for rows in (ground.forget, ground.retain) if rows is not None]
        self._grid = Grid(known)
        self._records = {_key(row + np.float32(0)) for rows in known for row in rows}
        self._makers: dict[str, Callable[[np.random.Generator], _Candidate]] = {
            "forget": self._forget,
            "class": self._class,
            "retained": self._retained,
            "elsewhere": self._elsewhere,
        }

    def kind(self, index: int) -> str:
        """The kind of the query ``index``."""
        return KINDS[int(self._kinds[index])]

    def _generator(self, index: int) -> np.random.Generator:
        key = hmac.digest(self._seed, _TAG + struct.pack(">Q", index), "sha256")
        return np.random.Generator(np.random.PCG64(int.from_bytes(key, "big")))

    def probe(self) -> Challenge | None:
        """A query of no account, like a user's, to learn whether the endpoint speaks as was agreed."""
        return self._drawn({PROBE: "elsewhere"}).get(PROBE)

    def draw(self, indices: Sequence[int]) -> Iterator[Challenge | None]:
        """The challenges of the queries ``indices``; None where none was found whose certified answer is certain."""
        found = self._drawn({index: self.kind(index) for index in indices})
        return (found.get(index) for index in indices)

    def _drawn(self, wanted: Mapping[int, str]) -> dict[int, Challenge]:
        """Draw candidates round by round, all open queries at once."""
        generators = {index: self._generator(index) for index in wanted}
        found: dict[int, Challenge] = {}
        for _ in range(_TRIES):
            still = [index for index in wanted if index not in found]
            if not still:
                break
            candidates = [self._makers[wanted[index]](generators[index]) for index in still]
            found |= self._accepted(wanted, still, candidates)
        return found

    def _accepted(
        self, wanted: Mapping[int, str], indices: Sequence[int], candidates: Sequence[_Candidate]
    ) -> dict[int, Challenge]:
        x = np.stack([candidate.x for candidate in candidates]) + np.float32(0)  # no user sends -0
        lower, upper = self._judge.expect(x)
        base = evaluate(self._ground.base, x).astype(np.float64)
        answers = strict_answers(self._ground.base, x)
        found = {}
        for place, (index, candidate) in enumerate(zip(indices, candidates, strict=True)):
            expected = Expected(lower[place], upper[place], self._eased(candidate.suppressed))
            kind = wanted[index]
            known = kind != "elsewhere" and _key(x[place]) in self._records
            wrong = candidate.label is not None and answers[place] != candidate.label
            if expected.label is None or known or wrong:
                continue
            self._judge.note(lower[place], upper[place])
            telling = self._judge.tells(expected, base[place], int(answers[place]))
            found[index] = Challenge(index, kind, candidate.mode, x[place], expected, telling)
        return found

    def _eased(self, claim: Suppressed | None) -> Suppressed | None:
        """The claim up to the tolerance that the auditor allows in two logits."""
        if claim is None or self._judge.tolerance is None:
            return claim
        return Suppressed(claim.label, max(Fraction(0), claim.margin - 2 * self._judge.tolerance))

    # --- one maker per kind ---

    def _forget(self, rng: np.random.Generator) -> _Candidate:
        ground = self._ground
        modes = (["noise", "towards"] if ground.held and ground.radius is not None else []) + (
            ["gate"] if ground.gates else []
        )
        mode = modes[rng.integers(len(modes))]
        if mode == "gate" or ground.forget is None or ground.radius is None:
            return self._gate(rng)
        place = int(rng.integers(len(ground.held)))
        centre = ground.forget.x[ground.held[place]]
        box = ball(centre, ground.radius, self._inside)
        return _Candidate(self._within(rng, centre, box, mode), mode, ground.suppressed[place])

    def _gate(self, rng: np.random.Generator) -> _Candidate:
        """A point of a gate's box: what the gate does not read comes from a retained record, of its label if any."""
        gate = self._ground.gates[rng.integers(len(self._ground.gates))]
        low, high = (end.reshape(-1).copy() for end in self._inside)
        x = self._like_a_user(rng, gate.label).reshape(-1).copy()
        for interval in gate.intervals:
            j = interval.coordinate
            least = low[j] if interval.low is None else max(low[j], interval.low)
            most = high[j] if interval.high is None else min(high[j], interval.high)
            x[j] = np.clip(np.float32(rng.uniform(least, max(least, most))), least, most)
            low[j], high[j] = least, most
        shape = self._ground.patched.input_shape
        return _Candidate(
            self._like_records(rng, x.reshape(shape), (low.reshape(shape), high.reshape(shape)), x), "gate"
        )

    def _class(self, rng: np.random.Generator) -> _Candidate:
        """An input that the base answers with a forgotten class: records moved, or two of them mixed."""
        claim = self._ground.classes[rng.integers(len(self._ground.classes))]
        pool = self._pools[claim.label]
        if not len(pool):
            return _Candidate(self._anywhere(rng), "anywhere", claim, claim.label)
        first, second = pool[rng.integers(len(pool))], pool[rng.integers(len(pool))]
        if rng.random() < 1 / 2:
            return _Candidate(self._mixed(rng, first, second, (0.1, 0.9)), "mixture", claim, claim.label)
        reach = Fraction(float(rng.uniform(0.01, 0.2)) * float((self._inside[1] - self._inside[0]).max()))
        x = self._within(rng, first, ball(first, reach, self._inside), "noise")
        return _Candidate(x, "noise", claim, claim.label)

    def _retained(self, rng: np.random.Generator) -> _Candidate:
        rows, radius = self._ground.retain, self._ground.retained_radius
        if rows is None or radius is None:
            return self._elsewhere(rng)
        mode = ("noise", "towards")[rng.integers(2)]
        centre = rows.x[rng.integers(len(rows.y))]
        return _Candidate(self._within(rng, centre, ball(centre, radius, self._inside), mode), mode)

    def _elsewhere(self, rng: np.random.Generator) -> _Candidate:
        """What users ask, as far as it is known: records as they are, mixtures, and paths out of a region."""
        ground = self._ground
        modes = ["record", "mixture"] if ground.retain is not None else ["anywhere"]
        modes += ["forgotten", "outside"] if ground.held else []
        mode = modes[rng.integers(len(modes))]
        if mode in ("forgotten", "outside") and ground.forget is not None:
            start = ground.forget.x[ground.held[rng.integers(len(ground.held))]]
            user = self._like_a_user(rng)
            return _Candidate(start if mode == "forgotten" else self._mixed(rng, user, start, (0.1, 0.7)), mode)
        if mode == "mixture":
            return _Candidate(self._mixed(rng, self._like_a_user(rng), self._like_a_user(rng), (0.1, 0.9)), mode)
        return _Candidate(self._like_a_user(rng), mode)

    # --- points ---

    def _anywhere(self, rng: np.random.Generator) -> Rows:
        low, high = self._inside
        return np.clip(rng.uniform(low, high).astype(np.float32), low, high)

    def _like_a_user(self, rng: np.random.Generator, label: int | None = None) -> Rows:
        """A retained record, of a label where there is one; without records any point of the domain."""
        rows = self._ground.retain
        if rows is None:
            return self._anywhere(rng)
        among = np.arange(len(rows.y)) if label is None else np.flatnonzero(rows.y == label)
        among = among if len(among) else np.arange(len(rows.y))
        found: Rows = rows.x[among[rng.integers(len(among))]]
        return found

    def _like_records(self, rng: np.random.Generator, x: Rows, box: Box, otherwise: Rows) -> Rows:
        """The point, or as often the nearest one with values that records have (pixels are no real numbers)."""
        return self._grid.snapped(x, box, otherwise) if rng.random() < 1 / 2 and self._grid.there else x

    def _mixed(self, rng: np.random.Generator, one: Rows, other: Rows, parts: tuple[float, float]) -> Rows:
        low, high = self._inside
        part = np.float32(rng.uniform(*parts))
        return self._like_records(rng, np.clip((one + (other - one) * part), low, high), self._inside, one)

    def _within(self, rng: np.random.Generator, centre: Rows, box: Box, mode: str) -> Rows:
        """A point of a ball: some coordinates moved at random, or all of them towards another record's side."""
        low, high = box
        if mode == "towards":
            edge = np.clip(self._like_a_user(rng), low, high)
            part = np.float32(rng.uniform(0.5, 1.0))
            x = np.clip((centre + (edge - centre) * part).astype(np.float32), low, high)
        else:
            moved = rng.random(centre.shape) < rng.uniform(0.1, 1.0)
            x = np.where(moved, np.clip(rng.uniform(low, high).astype(np.float32), low, high), centre)
        return self._like_records(rng, x, box, centre)

    def _pool(self, label: int) -> Rows:
        """Records that the base answers with a class, or that bear its label."""
        sets = [rows for rows in (self._ground.forget, self._ground.retain) if rows is not None]
        parts = [_of_class(self._ground, rows, label) for rows in sets]
        shape = (0, *self._ground.patched.input_shape)
        return np.concatenate([np.zeros(shape, dtype=np.float32), *parts])


def _key(row: Rows) -> bytes:
    """A short name of a row's values."""
    return hashlib.blake2b(row.tobytes(), digest_size=16).digest()


def _of_class(ground: Ground, rows: LabelledRows, label: int) -> Rows:
    labelled = np.flatnonzero(rows.y == label)[:_POOL]
    others = np.flatnonzero(rows.y != label)[:_POOL]
    answered = others[strict_answers(ground.base, rows.x[others]) == label] if len(others) else others
    found: Rows = rows.x[np.concatenate([labelled, answered])]
    return found
