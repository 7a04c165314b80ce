"""``prune-verify bench WORD``: which benchmark is meant, and whether its data are there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from prune_verify.bench.chain import BenchError
from prune_verify.bench.own_data import OwnData

__all__ = ["WORDS", "BenchError", "run_bench"]

Say = Callable[[str], None]
WORDS = {
    "chain": "the chain of verbs, and how its cost grows",
    "repair": "what each family of patches is worth, beside retraining and other baselines",
    "unlearning": "every way to forget beside genuine retraining, under attacks of membership inference",
    "check": "checking proofs beside making them",
    "prove": "VNN-COMP instances beside published answers",
    "claims": "ten thousand claims about one network",
    "vectors": "public test vectors of signatures, Merkle trees and JSON",
}
_NEEDED = {"check": "vnncomp", "prove": "vnncomp", "claims": "mnist", "vectors": "vectors"}


def run_bench(
    what: str,
    *,
    data: Path | None,
    own: OwnData | None = None,
    quick: bool,
    full: bool = False,
    out: Path | None,
    cache: Path | None = None,
    say: Say,
) -> tuple[int, str, dict[str, object]]:
    """Run one benchmark.

    Args:
        what: one of ``WORDS``.
        data: folder with mnist/, adult/ and vnncomp/; digits only when None.
        own: records of one's own, for ``repair``.
        quick: smaller sizes.
        full: the large sizes of ``unlearning``.
        out: where files go.
        cache: where ``unlearning`` keeps networks between runs.
        say: sink for progress lines.

    Returns:
        Exit code, tables, and the object for ``--json``.

    Raises:
        BenchError: a verb failed, or data are missing.

    """
    needed = _NEEDED.get(what)
    if needed is not None and (data is None or not (data / needed).is_dir()):
        message = f"bench {what} needs --data with a folder {needed}/ in it"
        raise BenchError(message)
    _require_own_options(what, {"repair": own is not None, "unlearning": full or cache is not None})
    if what == "unlearning" and quick == full:
        message = "bench unlearning: expected --quick or --full, one of them"
        raise BenchError(message)
    if what == "unlearning":
        from prune_verify.bench.unlearning import run_bench_unlearning

        return run_bench_unlearning(data, full=full, out=out, cache=cache, say=say)
    if what == "check":
        from prune_verify.bench.check import run_bench_check

        return run_bench_check(data or Path(), quick=quick, say=say)
    if what in ("prove", "claims"):
        from prune_verify.bench.prove import run_bench_claims, run_bench_prove

        return (run_bench_prove if what == "prove" else run_bench_claims)(data or Path(), quick=quick, out=out, say=say)
    if what == "vectors":
        from prune_verify.bench.vectors import run_bench_vectors

        return run_bench_vectors(data or Path(), say=say)
    if what == "repair":
        from prune_verify.bench.repair import run_bench_repair

        if data is not None and not (data / "mnist").is_dir():
            message = f"bench repair: --data {data}: expected a folder mnist/ in it, found none"
            raise BenchError(message)
        return run_bench_repair(data, own, quick=quick, out=out, say=say)
    from prune_verify.bench.growth import run_bench_chain

    return run_bench_chain(data, quick=quick, out=out, say=say)


def _require_own_options(what: str, given: dict[str, bool]) -> None:
    """Refuse options that belong to another benchmark.

    Raises:
        BenchError: the same.

    """
    named = {"repair": "--train and --test", "unlearning": "--full and --cache"}
    for owner, options in named.items():
        if given[owner] and what != owner:
            message = f"{options} belong to bench {owner}, not to bench {what}"
            raise BenchError(message)
