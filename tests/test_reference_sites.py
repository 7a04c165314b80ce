"""Hidden sites, gates that hold margins and shifts: the product beside a second reading of SPEC, on vectors and at random."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from certs.vectors.run import materialise
from prune_verify.checker import rules
from prune_verify.checker.claim import Claim, LabelledRows, Problem
from prune_verify.checker.errors import CheckError, ProofError
from prune_verify.checker.load_onnx import load_network
from prune_verify.checker.network import Network
from prune_verify.checker.patch import Gate, Interval, JointPatch, Patch, ShiftPatch
from prune_verify.checker.patch_json import PatchFile, emit_patch, parse_patch, require_disclosed
from prune_verify.checker.rebuild import build, coordinates_of, site_nodes
from prune_verify.checker.region import Domain
from prune_verify.checker.rules import BINARY32, REAL
from prune_verify.checker.shift_minimality import decide_shift_minimality
from tests import reference_sites
from tests.checker.random_networks import mlp
from tests.reference_checker import RefusedError, digest, lowered

F32 = np.float32
DOMAIN = Domain((Fraction(0),), (Fraction(1),))
VECTORS = json.loads((Path(__file__).resolve().parents[1] / "certs" / "vectors" / "vectors.json").read_text())
CHOSEN = [
    (group, test)
    for group in VECTORS["testGroups"]
    if group["name"] in ("gates at hidden outputs", "gates that hold margins", "shifts")
    for test in group["tests"]
]


def _random(seed: int) -> tuple[Network, Patch]:
    """A base with two hidden layers, and a patch on random sites with gates of different sizes."""
    rng = np.random.default_rng(seed)
    base = mlp(seed, 4, 5, 6, 4)
    sites = tuple(str(s) for s in rng.permutation(["input", "relu-0", "relu-1"])[: rng.integers(1, 4)])
    size = coordinates_of(base, ShiftPatch(4, (), sites, np.zeros((0, 4), F32)))
    gates = []
    for _ in range(int(rng.integers(1, 6))):
        chosen = np.sort(rng.choice(size, int(rng.integers(1, 4)), replace=False))
        ends = [tuple(sorted(rng.uniform(-1, 1, 2).astype(F32))) for _ in chosen]
        ways = rng.integers(0, 3, len(chosen))
        intervals = tuple(
            Interval(int(j), None if way == 1 else low, None if way == 2 else high)
            for j, (low, high), way in zip(chosen, ends, ways, strict=True)
        )
        hold = None if seed % 2 else tuple(np.sort(rng.uniform(-2, 2, 2)).astype(F32))
        gates.append(Gate(int(rng.integers(0, 4)), F32(rng.uniform(1, 9)), intervals, (0,), hold))
    if seed % 2:
        return base, ShiftPatch(4, tuple(gates), sites, rng.standard_normal((len(gates), 4)).astype(F32))
    return base, JointPatch(4, (), F32(0), F32(0), F32(64), tuple(gates), sites)


@pytest.mark.parametrize("seed", range(40))
def test_random_patches_are_rebuilt_with_the_same_digest(seed: int) -> None:
    base, patch = _random(seed)
    data = emit_patch(PatchFile(patch, base.digest()), coordinates_of(base, patch))
    form = reference_sites.read(data, lowered(base))
    assert digest(reference_sites.rebuilt(lowered(base), form)) == build(base, patch).digest()
    assert form.sites == list(site_nodes(base, patch.sites))


def _read(folder: Path) -> tuple[Network, Network, bytes]:
    base, patched = (load_network((folder / f"{n}.onnx").read_bytes(), n).network for n in ("base", "patched"))
    return base, patched, (folder / "evidence" / "patch.json").read_bytes()


def _product_rebuilds(data: bytes, base: Network, patched: Network) -> bool:
    try:
        patch = parse_patch(data, "p").patch
        require_disclosed(data, "p", patch, coordinates_of(base, patch))
        return build(base, patch).digest() == patched.digest()
    except CheckError:
        return False


@pytest.mark.parametrize(("group", "test"), CHOSEN, ids=[str(test["tcId"]) for _, test in CHOSEN])
def test_both_read_the_patches_of_the_vectors_alike(tmp_path: Path, group: dict, test: dict) -> None:
    """The same files are refused, and the same networks are taken for the patch's."""
    materialise(group, test, tmp_path)
    base, patched, data = _read(tmp_path)
    lowered_base = lowered(base)
    taken = _product_rebuilds(data, base, patched)
    try:
        form = reference_sites.read(data, lowered_base)
    except (RefusedError, ValueError):
        assert not taken
        return
    if form.holds is None and form.shifts is None:
        return  # the joint head at a site: the reading alone is compared
    assert (digest(reference_sites.rebuilt(lowered_base, form)) == patched.digest()) == taken


SHIFTS = [(group, test) for group, test in CHOSEN if group["name"] == "shifts"]


@pytest.mark.parametrize(("group", "test"), SHIFTS, ids=[str(test["tcId"]) for _, test in SHIFTS])
def test_both_count_the_same_least_shifts(tmp_path: Path, group: dict, test: dict) -> None:
    materialise(group, test, tmp_path)
    base, patched, data = _read(tmp_path)
    evidence = tmp_path / "evidence" / "C5.proof"
    if not _product_rebuilds(data, base, patched) or not evidence.is_file():
        return
    with np.load(tmp_path / "forget.npz") as arrays:
        rows = LabelledRows(arrays["x"], arrays["y"])
    radius, margin = Fraction(1, 128), Fraction(1, 20)
    claim = Claim("minimality", REAL, "shift-point", radius=radius, margin=margin)
    problem = Problem(base, patched, parse_patch(data, "p").patch, DOMAIN, forget=rows)
    exact = [([Fraction(float(v)) for v in x], int(y)) for x, y in zip(rows.flat(), rows.y, strict=True)]
    form = reference_sites.read(data, lowered(base))
    try:
        points = reference_sites.read_points(evidence.read_bytes(), base.input_shape[0])
        found = reference_sites.least_shifts(form, lowered(base), points, exact, radius, margin)
    except (RefusedError, ValueError):
        with pytest.raises(CheckError):
            decide_shift_minimality(problem, claim, evidence.read_bytes(), "p")
        return
    outcome = decide_shift_minimality(problem, claim, evidence.read_bytes(), "p")
    assert outcome.unknowns == tuple(i for i, proved in enumerate(found) if not proved)


@pytest.mark.parametrize("seed", range(0, 40, 2))
@pytest.mark.parametrize("arithmetic", [REAL, BINARY32])
def test_both_ask_the_same_of_a_head_that_holds(seed: int, arithmetic: str) -> None:
    """At the limit of K, a little above it and a little below."""
    base, patch = _random(seed)
    form = reference_sites.read(emit_patch(PatchFile(patch, base.digest()), coordinates_of(base, patch)), lowered(base))
    size = max(abs(Fraction(end)) for ends in form.holds for end in ends)
    rounding = Fraction(1, 2**18) if arithmetic == BINARY32 else Fraction(0)
    magnitude = Fraction(30)
    limit = Fraction(form.slack) - 2 * size - rounding * (Fraction(form.slack) + magnitude)
    for spread in (limit, limit - Fraction(1, 2**60), limit + Fraction(1, 2**60)):
        expected = reference_sites.hold_conditions(form, spread, magnitude, rounding)
        assert expected == (spread <= limit)
        if expected:
            rules.hold_head(patch, spread, magnitude, arithmetic)
        else:
            with pytest.raises(ProofError):
                rules.hold_head(patch, spread, magnitude, arithmetic)
