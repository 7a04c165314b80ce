"""z3 refutes the negation of every structural rule, over the reals, for small shapes.

Each test states the side conditions that ``rules.py`` checks and the negated conclusion; ``unsat`` means the rule holds.
Each rule also has a row in which one side condition is dropped and z3 must find a counterexample: the conditions are needed.
"""

from __future__ import annotations

import pytest

z3 = pytest.importorskip("z3")
pytestmark = pytest.mark.prover


def largest(values):
    best = values[0]
    for value in values[1:]:
        best = z3.If(value > best, value, best)
    return best


def relu(value):
    return z3.If(value > 0, value, z3.RealVal(0))


def least(a, b):
    return z3.If(a < b, a, b)


class Head:
    """The joint head over ``count`` labels with symbolic logits and closedness, R, tau, M and K."""

    def __init__(self, count, *, shift_rule=True, slack_rule=True, premise=True):
        self.z = [z3.Real(f"z{j}") for j in range(count)]
        self.o = [z3.Real(f"o{j}") for j in range(count)]
        self.tau, shift, slack, spread = z3.Reals("tau M K R")
        lowered = [z - shift * (1 - o) for z, o in zip(self.z, self.o, strict=True)]
        self.out = []
        for y in range(count):
            best = largest([lowered[j] for j in range(count) if j != y])
            self.out.append(least(self.z[y], best - self.tau + slack * self.o[y]))
        self.conditions = [self.tau > 0, spread >= 0, *(z3.And(o >= 0, o <= 1) for o in self.o)]
        self.conditions += [a - b <= spread for a in self.z for b in self.z]
        self.conditions.append(shift >= spread + self.tau if shift_rule else shift > 0)
        self.conditions.append(slack >= spread + shift + self.tau if slack_rule else slack >= shift)
        if premise:
            self.conditions.append(z3.Or([o == 1 for o in self.o]))

    def others(self, values, y):
        return largest([v for j, v in enumerate(values) if j != y])


def refute(conditions, conclusion):
    solver = z3.Solver()
    solver.set("timeout", 60_000)
    solver.add(*conditions, z3.Not(conclusion))
    return str(solver.check())


@pytest.mark.parametrize("count", [2, 3])
def test_joint_head_closed_label_keeps_its_logit(count):
    head = Head(count)
    for y in range(count):
        assert refute([*head.conditions, head.o[y] == 1], head.out[y] == head.z[y]) == "unsat"


@pytest.mark.parametrize("count", [2, 3])
def test_joint_head_open_label_loses_by_tau(count):
    head = Head(count)
    for y in range(count):
        goal = head.out[y] <= head.others(head.out, y) - head.tau
        assert refute([*head.conditions, head.o[y] == 0], goal) == "unsat"


@pytest.mark.parametrize("count", [2, 3])
def test_joint_head_answer_of_a_closed_label_stays(count):
    head = Head(count)
    for y in range(count):
        wins = z3.And([head.z[y] >= head.z[j] if j > y else head.z[y] > head.z[j] for j in range(count) if j != y])
        keeps = z3.And(
            [head.out[y] >= head.out[j] if j > y else head.out[y] > head.out[j] for j in range(count) if j != y]
        )
        assert refute([*head.conditions, head.o[y] == 1, wins], keeps) == "unsat"


@pytest.mark.parametrize(
    ("dropped", "label_state", "closed"),
    [("slack_rule", 1, True), ("shift_rule", 0, False), ("premise", 0, False)],
)
def test_joint_head_without_a_side_condition_has_a_counterexample(dropped, label_state, closed):
    head = Head(3, **{dropped: False})
    goal = head.out[0] == head.z[0] if closed else head.out[0] <= head.others(head.out, 0) - head.tau
    assert refute([*head.conditions, head.o[0] == label_state], goal) == "sat"


def gate(count):
    x = [z3.Real(f"x{j}") for j in range(count)]
    low = [z3.Real(f"low{j}") for j in range(count)]
    high = [z3.Real(f"high{j}") for j in range(count)]
    gamma = z3.Real("gamma")
    violation = sum(relu(a - h) + relu(lo - a) for a, lo, h in zip(x, low, high, strict=True))
    return x, low, high, gamma, relu(1 - gamma * violation)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_gate_open_on_a_ball_inside_the_box(count):
    x, low, high, gamma, g = gate(count)
    c, r = [z3.Real(f"c{j}") for j in range(count)], z3.Real("r")
    inside = [
        z3.And(cj - r <= xj, xj <= cj + r, lo <= cj - r, cj + r <= h)
        for cj, xj, lo, h in zip(c, x, low, high, strict=True)
    ]
    assert refute([gamma > 0, r >= 0, *inside], g == 1) == "unsat"
    inside[0] = z3.And(c[0] - r <= x[0], x[0] <= c[0] + r, low[0] <= c[0] - r, c[0] <= high[0])
    assert refute([gamma > 0, r >= 0, *inside], g == 1) == "sat"


@pytest.mark.parametrize("count", [1, 2])
def test_gate_closed_where_the_least_violation_reaches_one_over_gamma(count):
    x, low, high, gamma, g = gate(count)
    c, r = [z3.Real(f"c{j}") for j in range(count)], z3.Real("r")
    ball = [z3.And(cj - r <= xj, xj <= cj + r) for cj, xj in zip(c, x, strict=True)]
    boxes = [lo <= h for lo, h in zip(low, high, strict=True)]
    bound = sum(relu(cj - r - h) + relu(lo - cj - r) for cj, lo, h in zip(c, low, high, strict=True))
    assert refute([gamma > 0, r >= 0, *ball, *boxes, gamma * bound >= 1], g == 0) == "unsat"
    assert refute([gamma > 0, r >= 0, *ball, *boxes, gamma * bound >= z3.Q(1, 2)], g == 0) == "sat"


@pytest.mark.parametrize("count", [1, 3])
def test_label_sum_is_closed_by_zeros_and_opened_by_one(count):
    g = [z3.Real(f"g{j}") for j in range(count)]
    bounds = [z3.And(v >= 0, v <= 1) for v in g]
    assert refute([*bounds, *(v == 0 for v in g)], relu(1 - sum(g)) == 1) == "unsat"
    assert refute([*bounds, z3.Or([v == 1 for v in g])], relu(1 - sum(g)) == 0) == "unsat"


@pytest.mark.parametrize("count", [1, 2, 3])
def test_class_cap_forgets_and_keeps_other_answers(count):
    a = [z3.Real(f"a{j}") for j in range(count)]
    c, tau = z3.Reals("c tau")
    best = largest(a)
    capped = least(c, best - (tau + z3.Q(1, 2**20) * z3.If(best < 0, -best, best)))
    assert refute([tau > 0], capped <= best - tau) == "unsat"
    assert refute([tau > 0], z3.And(capped <= c, z3.Implies(c < best, capped < best))) == "unsat"
    assert refute([tau > 0], capped == c) == "sat"
