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
    "check": "checking proofs beside making them",
    "prove": "VNN-COMP instances beside published answers",
    "claims": "ten thousand claims about one network",
}
_NEEDED = {"check": "vnncomp", "prove": "vnncomp", "claims": "mnist"}


def run_bench(
    what: str, *, data: Path | None, own: OwnData | None = None, quick: bool, out: Path | None, say: Say
) -> tuple[int, str, dict[str, object]]:
    """Run one benchmark.

    Args:
        what: one of ``WORDS``.
        data: folder with mnist/, adult/ and vnncomp/; digits only when None.
        own: records of one's own, for ``repair``.
        quick: smaller sizes.
        out: where files go.
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
    if own is not None and what != "repair":
        message = f"--train and --test belong to bench repair, not to bench {what}"
        raise BenchError(message)
    if what == "check":
        from prune_verify.bench.check import run_bench_check

        return run_bench_check(data or Path(), quick=quick, say=say)
    if what in ("prove", "claims"):
        from prune_verify.bench.prove import run_bench_claims, run_bench_prove

        return (run_bench_prove if what == "prove" else run_bench_claims)(data or Path(), quick=quick, out=out, say=say)
    if what == "repair":
        from prune_verify.bench.repair import run_bench_repair

        if data is not None and not (data / "mnist").is_dir():
            message = f"bench repair: --data {data}: expected a folder mnist/ in it, found none"
            raise BenchError(message)
        return run_bench_repair(data, own, quick=quick, out=out, say=say)
    from prune_verify.bench.growth import run_bench_chain

    return run_bench_chain(data, quick=quick, out=out, say=say)
