"""z3 refutes the negation of the rules for heads that hold margins, for gates at any site, and for least shifts.

Over the reals, for small shapes. Every rule has rows in which one side condition is dropped, and there z3 has to find a
counterexample: the conditions are needed.

Source: certs/SPEC.md sections 4.2, 4.10 and 4.11; what rounding costs is attacked in tests/checker.
"""

from __future__ import annotations

import pytest

z3 = pytest.importorskip("z3")
pytestmark = pytest.mark.prover

HOLDS, FAILS = "unsat", "sat"


def refute(conditions: list, conclusion: object) -> str:
    solver = z3.Solver()
    solver.set("timeout", 60_000)
    solver.add(*conditions, z3.Not(conclusion))
    return str(solver.check())


def size(value: object) -> object:
    return z3.If(value < 0, -value, value)


def positive(value: object) -> object:
    return z3.If(value > 0, value, 0)


# --- the head that holds margins: one label with two gates, one with a gate, one without ---


class Symbols:
    """The head of MATHS 3.2 with gates that hold, symbolic; ``owner`` says whose label each gate is."""

    def __init__(self, *, slack: str = "R + 2H", ordered: bool = True) -> None:
        self.owner = (0, 0, 1)
        count, gates = 3, len(self.owner)
        self.z, self.g, self.low, self.high = (
            [z3.Real(f"{name}{i}") for i in range(n)] for name, n in (("z", count), ("g", gates), ("low", gates), ("high", gates))
        )  # fmt: skip
        k, spread, most = z3.Reals("K R H")
        self.out = [self._held(y, k) for y in range(count)]
        self.conditions = [z3.And(g >= 0, g <= 1) for g in self.g]
        self.conditions += [a - b <= spread for a in self.z for b in self.z]
        self.conditions += [z3.And(-most <= end, end <= most) for end in (*self.low, *self.high)]
        self.conditions.append(k >= {"R + 2H": spread + 2 * most, "R + H": spread + most, "2H": 2 * most}[slack])
        self.conditions += [low <= high for low, high in zip(self.low, self.high, strict=True)] if ordered else []

    def _most(self, values: list) -> object:
        found = values[0]
        for value in values[1:]:
            found = z3.If(value > found, value, found)
        return found

    def _rival(self, values: list, y: int) -> object:
        return self._most([value for j, value in enumerate(values) if j != y])

    def _held(self, y: int, k: object) -> object:
        own = [i for i, label in enumerate(self.owner) if label == y]
        best = self._rival(self.z, y)
        if not own:
            return self.z[y]
        upper = -self._most([-(best + self.high[i]) - k * (1 - self.g[i]) for i in own])
        lower = self._most([best + self.low[i] - k * (1 - self.g[i]) for i in own])
        return self._most([z3.If(self.z[y] < upper, self.z[y], upper), lower])

    def refute(self, values: tuple[object, ...], conclusion: object) -> str:
        gates = [g == value for g, value in zip(self.g, values, strict=True) if value is not None]
        return refute([*self.conditions, *gates], conclusion)

    def kept(self) -> object:
        return z3.And([a == b for a, b in zip(self.out, self.z, strict=True)])

    def held(self, place: int) -> object:
        y = self.owner[place]
        margin = self.out[y] - self._rival(self.out, y)
        return z3.And(self.low[place] <= margin, margin <= self.high[place])


def test_closed_gates_keep_every_logit_and_one_alone_holds() -> None:
    head = Symbols()
    assert head.refute((0, 0, 0), head.kept()) == HOLDS
    for place in range(3):
        alone = tuple(int(i == place) for i in range(3))
        assert head.refute(alone, head.held(place)) == HOLDS
        others = z3.And([head.out[j] == head.z[j] for j in range(3) if j != head.owner[place]])
        assert head.refute(alone, others) == HOLDS
    assert head.refute((None, None, 0), head.out[1] == head.z[1]) == HOLDS  # a label with closed gates, anyhow


@pytest.mark.parametrize(
    ("sentence", "made", "gates"),
    [
        ("K of R + H: the closed gate of the label pulls", {"slack": "R + H"}, (1, 0, 0)),
        ("K of 2 H: the closed gates change the logit", {"slack": "2H"}, (0, 0, 0)),
        ("ends in the wrong order", {"ordered": False}, (1, 0, 0)),
        ("a gate that is not quite open", {}, (None, 0, 0)),
        ("another gate of the label open too", {}, (1, 1, 0)),
        ("another gate of the label half open", {}, (1, None, 0)),
        ("a gate of a rival open too", {}, (1, 0, 1)),
    ],
)
def test_without_a_side_condition_there_is_a_counterexample(sentence: str, made: dict, gates: tuple) -> None:
    head = Symbols(**made)
    conclusion = head.held(0) if gates[0] != 0 else head.kept()
    assert head.refute(gates, conclusion) == FAILS, sentence


# --- gates at any site: the values that they read are known to lie in enclosures ---


class Reading:
    """A gate over ``count`` coordinates, each with both edges, and an enclosure of what it reads."""

    def __init__(self, count: int) -> None:
        names = ("x", "low", "high", "edge_low", "edge_high")
        self.x, self.low, self.high, self.below, self.above = (
            [z3.Real(f"{n}{j}") for j in range(count)] for n in names
        )
        self.inside = [z3.And(lo <= x, x <= hi) for lo, x, hi in zip(self.low, self.x, self.high, strict=True)]
        self.gamma = z3.Real("gamma")
        parts = zip(self.x, self.below, self.above, strict=True)
        self.open = positive(1 - self.gamma * sum(positive(x - hi) + positive(lo - x) for x, lo, hi in parts))
        ends = list(zip(self.low, self.high, self.below, self.above, strict=True))
        self.held = [z3.And(hi <= above, lo >= below) for lo, hi, below, above in ends]
        self.least = sum(positive(lo - above) + positive(below - hi) for lo, hi, below, above in ends)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_gate_is_open_where_the_enclosures_lie_in_its_box(count: int) -> None:
    read = Reading(count)
    positive_slope = [read.gamma > 0]
    assert refute([*positive_slope, *read.inside, *read.held], read.open == 1) == HOLDS
    assert refute([*positive_slope, *read.inside[1:], *read.held], read.open == 1) == FAILS
    assert refute([*positive_slope, *read.inside, *read.held[1:]], read.open == 1) == FAILS


@pytest.mark.parametrize("count", [1, 2])
def test_a_gate_is_closed_where_the_enclosures_are_far_enough(count: int) -> None:
    read = Reading(count)
    known, far = [read.gamma > 0, *read.inside], read.gamma * read.least >= 1
    assert refute([*known, far], read.open == 0) == HOLDS
    assert refute([*known, read.gamma * read.least >= z3.Q(1023, 1024)], read.open == 0) == FAILS
    assert refute([read.gamma > 0, *read.inside[1:], far], read.open == 0) == FAILS
    assert refute([*read.inside, read.gamma < 0, read.gamma * read.least <= -1], read.open == 0) == FAILS


# --- least shifts ---


@pytest.mark.parametrize("count", [2, 3, 4, 5])
def test_no_additive_patch_that_forgets_at_a_point_has_smaller_numbers_there(count: int) -> None:
    """N + P loses at the point by tau: some |P_j| is at least (N_y - m + tau) / 2, for y = 0 and m over the others."""
    n, p = ([z3.Real(f"{name}{j}") for j in range(count)] for name in ("n", "p"))
    tau, best, greatest = z3.Reals("tau m greatest")
    known = [*(best >= other for other in n[1:]), z3.Or([best == other for other in n[1:]])]
    known += [z3.And(size(one) <= greatest) for one in p]
    forgets = z3.Or([n[j] + p[j] >= n[0] + p[0] + tau for j in range(1, count)])
    least = (n[0] - best + tau) / 2
    assert refute([*known, forgets], greatest >= least) == HOLDS
    assert refute(known, greatest >= least) == FAILS
    assert refute([*known, forgets], greatest >= least + z3.Q(1, 2**20)) == FAILS  # the bound is reached
    assert refute([*known[count:], forgets], greatest >= least) == FAILS  # m has to be the greatest other logit
    half = [z3.And(p[0] == -greatest, p[1] == greatest, n[1] == best), greatest >= least]
    assert refute([*known, *half], forgets) == HOLDS  # half up and half down is enough


def test_a_bound_up_to_the_factor_says_how_far_from_least_a_shift_is() -> None:
    """greatest (1 - 2^-10) <= L: every additive patch that forgets has a number of at least greatest (1 - 2^-10)."""
    greatest, least, other = z3.Reals("greatest L other")
    near = greatest * (1 - z3.Q(1, 2**10)) <= least
    assert refute([near, other >= least], other >= greatest * z3.Q(1023, 1024)) == HOLDS
    assert refute([near, other >= least], other >= greatest) == FAILS
