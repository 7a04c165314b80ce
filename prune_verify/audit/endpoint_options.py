"""The options of ``audit``: where the model is served, how many queries, how the client behaves.

Source: FORMATS section 3.
"""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from prune_verify.checker.__main__ import add_input_arguments
from prune_verify.checker.encoding import parse_decimal
from prune_verify.checker.errors import MalformedInputError

__all__ = ["Demands", "add_audit", "demands_of"]

_SEED = re.compile(r"[0-9a-f]{64}\Z")
_MOST_QUERIES = 10**6
_MOST_BATCH = 4096
_KINDS_OF_SHARES = 3


@dataclass(frozen=True)
class Demands:
    """What the auditor asks of the audit.

    Args:
        queries: how many.
        shares: of forget regions, retained regions, elsewhere.
        batch: queries in one request.
        confidence: of intervals and bounds.
        max_deviation: greatest share of deviating answers in forget regions that is accepted.
        tolerance: allowed difference of a logit, or None: what float32 may round.
        seed: in hex, or None: a fresh one.

    """

    queries: int
    shares: tuple[Fraction, Fraction, Fraction]
    batch: int
    confidence: float
    max_deviation: float
    tolerance: Fraction | None
    seed: str | None


def add_audit(parser: argparse.ArgumentParser) -> None:
    """Add every option of ``audit``."""
    parser.add_argument(
        "endpoint", metavar="ENDPOINT", help="http(s)://HOST[:PORT][/PREFIX]/v2/models/NAME[/versions/VERSION]"
    )
    parser.add_argument(
        "--certificate", type=Path, required=True, metavar="NAME.unlearn.json", help="what the model was certified as"
    )
    add_input_arguments(parser)
    _add_queries(parser.add_argument_group("queries and what is demanded of the answers"))
    _add_client(parser.add_argument_group("how the endpoint is asked"))


def _add_queries(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--queries", type=int, default=1200, metavar="N", help="queries in all (default 1200)")
    group.add_argument(
        "--shares",
        default="0.6,0.2,0.2",
        metavar="F,R,E",
        help="shares of the queries: forget regions, retained regions, elsewhere (default 0.6,0.2,0.2)",
    )
    group.add_argument(
        "--max-deviation", default="0.01", metavar="P", help="accepted share of deviating answers (default 0.01)"
    )
    group.add_argument(
        "--confidence", default="0.95", metavar="C", help="confidence that it is not greater (default 0.95)"
    )
    group.add_argument(
        "--tolerance",
        metavar="T",
        help="allowed difference of a logit, for servers in TF32 or float16 (default: what float32 rounds)",
    )
    group.add_argument(
        "--batch", type=int, default=1, metavar="B", help="queries in one request; each request counts once (default 1)"
    )
    group.add_argument("--seed", metavar="HEX", help="32 bytes that the server must not know (default: fresh ones)")
    group.add_argument("--state", type=Path, metavar="FILE", help="keep answers here; a killed audit goes on from it")
    group.add_argument(
        "--insecure-unverified-certificate",
        action="store_true",
        help="go on although the certificate is not VERIFIED; the verdict is at most UNDECIDED",
    )


def _add_client(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--input", metavar="NAME", help="name of the model's input (default: as in the certified file)")
    group.add_argument("--output", metavar="NAME", help="output with the logits (default: as in the certified file)")
    group.add_argument("--label-output", metavar="NAME", help="integer output with the label; alone unless --output")
    group.add_argument(
        "--datatype", choices=["FP32", "FP64"], default="FP32", help="of inputs, where metadata has none (default FP32)"
    )
    group.add_argument(
        "--rate", type=float, default=20.0, metavar="N", help="requests per second, 0 for no limit (default 20)"
    )
    group.add_argument("--timeout", type=float, default=30.0, metavar="S", help="seconds for one request (default 30)")
    group.add_argument(
        "--retries",
        type=int,
        default=5,
        metavar="N",
        help="times that a request is repeated after failures of transport (default 5)",
    )
    group.add_argument("--headers", type=Path, metavar="FILE", help="lines Name: value, sent with every request")
    group.add_argument("--ca", type=Path, metavar="FILE", help="certificate authorities to believe (default: system)")
    group.add_argument("--proxy", metavar="URL", help="an HTTP proxy (none is taken from the environment)")


def _between(text: str, name: str, low: int, high: int) -> Fraction:
    value = parse_decimal(text, name)
    if not low < value < high:
        raise MalformedInputError(name, "number", f"between {low} and {high}", text)
    return value


def demands_of(options: argparse.Namespace) -> Demands:
    """The demands of a command line.

    Raises:
        MalformedInputError: a number out of its range, or of another form.

    """
    parts = options.shares.split(",")
    if len(parts) != _KINDS_OF_SHARES:
        raise MalformedInputError("--shares", "shares", "three decimals, as 0.6,0.2,0.2", options.shares)
    first, second, third = (parse_decimal(part, "--shares") for part in parts)
    if min(first, second, third) < 0 or first <= 0:
        raise MalformedInputError("--shares", "shares", "none below 0, the first above 0", options.shares)
    for name, least, most in (("queries", 1, _MOST_QUERIES), ("batch", 1, _MOST_BATCH), ("retries", 0, 100)):
        if not least <= getattr(options, name) <= most:
            raise MalformedInputError(f"--{name}", "number", f"{least} to {most}", str(getattr(options, name)))
    for name, low in (("rate", 0.0), ("timeout", 0.001)):
        if not low <= getattr(options, name) <= 10**6:
            raise MalformedInputError(f"--{name}", "number", f"{low:g} to 1000000", str(getattr(options, name)))
    if options.seed is not None and not _SEED.match(options.seed):
        raise MalformedInputError("--seed", "seed", "64 hex digits", options.seed)
    tolerance = None if options.tolerance is None else parse_decimal(options.tolerance, "--tolerance")
    if tolerance is not None and tolerance < 0:
        raise MalformedInputError("--tolerance", "number", "at least 0", options.tolerance)
    return Demands(
        queries=options.queries,
        shares=(first, second, third),
        batch=options.batch,
        confidence=float(_between(options.confidence, "--confidence", 0, 1)),
        max_deviation=float(_between(options.max_deviation, "--max-deviation", 0, 1)),
        tolerance=tolerance,
        seed=options.seed,
    )
