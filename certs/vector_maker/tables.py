"""The records of the vectors as the other files that records come in: csv, with an encoding too, and idx.

A cell of the tables is a grey level from 0 to 16, or that over 16; the records, and so the commitments, are those of
the npz files. The grey levels of idx files are over 255, so that those records are others, a 510th away at most.
"""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from certs.vector_maker.cases import Build, Files, demand, edit, then
from certs.vector_maker.owner import SIZE, Chain, sets
from prune_verify.checker.encoding import format_decimal
from prune_verify.checker.record_encoding import Encoding, NumberColumn, emit_encoding

__all__ = ["ENCODING", "NAMES", "as_csv", "as_idx", "csv_words", "encoded", "idx_bytes", "idx_words", "table"]

F = np.float32
_LEVELS, _WHITE = 16, 255
NAMES = ("zero", "one", "two", "three")
ENCODING = Encoding(
    tuple(NumberColumn(f"p{place}", Fraction(0), Fraction(_LEVELS)) for place in range(SIZE)), "digit", NAMES
)
_IDX = {"forget": ("forget-images.idx", "forget-labels.idx"), "retain": ("retain-images.idx", "retain-labels.idx")}


def _sets() -> dict[str, tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]]:
    x, y, others, labels = sets()
    return {"forget": (x, y), "retain": (others, labels)}


def table(
    which: str, *, raw: bool = False, order: Sequence[int] = range(SIZE), names: Sequence[int] | None = None
) -> bytes:
    """A csv file: the pixels and column ``digit``.

    Args:
        which: set.
        raw: grey levels and the names of the digits, for which an encoding is needed.
        order: of the pixels.
        names: of the columns where they are not those of ``order``.

    """
    x, y = _sets()[which]
    lines = [",".join([*(f"p{place}" for place in (names or order)), "digit"])]
    for row, label in zip(x[:, list(order)], y, strict=True):
        cells = [str(int(v * _LEVELS)) if raw else format_decimal(Fraction(float(v))) for v in row]
        lines.append(",".join([*cells, NAMES[label] if raw else str(label)]))
    return ("\n".join(lines) + "\n").encode()


def csv_words(*more: str) -> tuple[str, ...]:
    """The arguments for tables."""
    return ("--forget", "forget.csv", "--retain", "retain.csv", "--label-column", "digit", *more)


def _without_npz() -> Files:
    return {"forget.npz": {"absent": True}, "retain.npz": {"absent": True}}


def as_csv() -> Build:
    """The records as tables of numbers."""
    return lambda _: {"forget.csv": table("forget"), "retain.csv": table("retain")} | _without_npz()


def encoded(*, said: bool = True) -> Build:
    """The records as tables of grey levels with their encoding, which statement and policy name."""
    digest = ENCODING.sha256
    shown = {
        "forget.csv": table("forget", raw=True), "retain.csv": table("retain", raw=True),
        "encoding.json": emit_encoding(ENCODING),
    }  # fmt: skip
    named = edit(lambda d: d["predicate"]["semantics"].update(encodingSha256=digest if said else None))
    policy = demand(encoding_sha256=f'"{digest if said else "none"}"')
    return then(named, policy, lambda _: {**shown, **_without_npz()})


def idx_bytes(values: npt.NDArray[np.uint8]) -> bytes:
    """An idx file of bytes."""
    sizes = b"".join(length.to_bytes(4, "big") for length in values.shape)
    return bytes([0, 0, 8, values.ndim]) + sizes + values.tobytes()


def idx_words(suffix: str = "") -> tuple[str, ...]:
    """The arguments for idx files."""
    forget, retain = (",".join(name + suffix for name in _IDX[which]) for which in ("forget", "retain"))
    return ("--forget", forget, "--retain", retain)


def as_idx(*, zipped: bool = False) -> Build:
    """The records as idx files; what is claimed are slightly smaller balls, which the gates hold as well."""

    def build(chain: Chain) -> Files:
        found: Files = {}
        for which, (x, y) in _sets().items():
            grey = np.rint(x * _WHITE).astype(np.uint8)
            chain.records(which, grey.astype(F) / F(_WHITE), y)
            for name, values in zip(_IDX[which], (grey.reshape(-1, 8, 8), y.astype(np.uint8)), strict=True):
                data = idx_bytes(values)
                # stored, not compressed: the same bytes with every version of zlib
                found[name + ".gz" * zipped] = gzip.compress(data, 0, mtime=0) if zipped else data
        document = chain.statement()
        for claim in document["predicate"]["claims"]:
            if claim["region"] is not None:
                claim["region"]["radius"] = {"0.1": "0.09", "0.05": "0.045"}[claim["region"]["radius"]]
        return chain.put(document).files | found | _without_npz()

    return then(demand(min_forget_radius="0.09", min_retained_radius="0.045"), build)
