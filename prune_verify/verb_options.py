"""The options of verbs that have no room of their own for them; those of others stand in their rooms."""

from __future__ import annotations

import argparse
from pathlib import Path

from prune_verify.audit.key_options import add_secret
from prune_verify.checker.check_proof import ARITHMETICS
from prune_verify.completion import SHELLS

__all__ = [
    "add_answers",
    "add_bench",
    "add_certify",
    "add_completion",
    "add_demo",
    "add_encode",
    "add_export",
    "add_inspect",
    "add_prove",
    "add_request",
    "add_verdict",
    "common_options",
]


def common_options() -> argparse.ArgumentParser:
    """What every verb has, as a parent of parsers."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument(
        "--json", action="store_true", help="one JSON object on standard output, everything else on standard error"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress")
    return parser


def add_demo(parser: argparse.ArgumentParser) -> None:
    """Add every option of ``demo``."""
    parser.add_argument(
        "--out", type=Path, default=Path("demo-out"), metavar="DIR", help="where files go (default: demo-out)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of what is drawn at random (default 0)")


def add_completion(parser: argparse.ArgumentParser) -> None:
    """Add every option of ``completion``."""
    parser.add_argument("shell", choices=SHELLS, help="whose script")


def add_inspect(parser: argparse.ArgumentParser) -> None:
    """Add every option of ``inspect``."""
    parser.add_argument("file", type=Path, metavar="NAME.unlearn.json", help="the certificate")


def add_request(parser: argparse.ArgumentParser) -> None:
    """Add every option of ``request``."""
    parser.add_argument("base", type=Path, metavar="BASE.onnx", help="the network before the request")
    parser.add_argument("patched", type=Path, nargs="?", metavar="PATCHED.onnx", help="checked to fit the base")
    parser.add_argument(
        "--forget", metavar="RECORDS", help="records to forget: npz, csv, or IMAGES,LABELS[:indices.txt]"
    )
    parser.add_argument(
        "--forget-class", type=int, action="append", default=[], metavar="C", help="a label to forget (repeatable)"
    )
    parser.add_argument("--retain", metavar="RECORDS", help="records that must stay as they are")
    parser.add_argument("--label-column", metavar="NAME", help="label column of csv files")
    parser.add_argument("--encoding", type=Path, metavar="ENCODING.json", help="apply this encoding to csv files")
    parser.add_argument("--domain", metavar="LO,HI|FILE", help="input domain; default 0,1 when all data lie in it")
    parser.add_argument(
        "--radius", metavar="R", help="of the forget balls, in input units (default: a tenth of the domain's width)"
    )
    parser.add_argument(
        "--retained-radius",
        metavar="R",
        help="of the retained balls, in input units (default: a twentieth of that width)",
    )
    parser.add_argument("--margin", metavar="M", help="least margin of every forget claim, in logits (default 0.1)")
    parser.add_argument("--delta", metavar="D", help="retain_close: largest change of a logit (default 0.1)")
    parser.add_argument(
        "--band", metavar="LO,HI", help="band: ends of the forgotten label's margin, in logits, as --band=-9,-0.5"
    )
    parser.add_argument(
        "--cover", type=int, metavar="N", help="minimality: separating coordinates per retained record (default 2)"
    )
    parser.add_argument(
        "--claims", metavar="KIND,..", help="default: forget,retain_label; with --delta and --band also theirs"
    )
    parser.add_argument("--arithmetic", default="binary32,real", metavar="NAME,..", help="default: binary32,real")
    parser.add_argument("--reference", default="", help="opaque reference of the request")
    parser.add_argument("--out", type=Path, required=True, metavar="REQUEST.json", help="where the request is written")


def _add_sources(parser: argparse.ArgumentParser) -> None:
    """What ``certify`` and ``export`` read."""
    parser.add_argument("base", type=Path, metavar="BASE.onnx", help="the network before the request")
    parser.add_argument("patched", type=Path, metavar="PATCHED.onnx", help="the network that is to be deployed")
    parser.add_argument(
        "--request", type=Path, required=True, metavar="REQUEST.json", help="as `repair` or `request` wrote it"
    )
    parser.add_argument(
        "--forget", metavar="RECORDS", help="the records of the request: npz, csv, or IMAGES,LABELS[:indices.txt]"
    )
    parser.add_argument("--retain", metavar="RECORDS", help="the retained records of the request")
    parser.add_argument("--label-column", metavar="NAME", help="label column of csv files")
    parser.add_argument("--encoding", type=Path, metavar="ENCODING.json", help="encoding of csv files")
    parser.add_argument(
        "--patch",
        type=Path,
        metavar="PATCH.json",
        help="what the patch is (default: patch.json beside the patched network)",
    )


def add_export(parser: argparse.ArgumentParser) -> None:
    """Add every option of ``export``."""
    _add_sources(parser)
    parser.add_argument(
        "--records", default="0:10", metavar="FIRST:END", help="which records of each claim (default 0:10; : for all)"
    )
    parser.add_argument(
        "--arithmetic", choices=ARITHMETICS, default="real", help="arithmetic of the claims (default real)"
    )
    parser.add_argument(
        "--timeout",
        type=int,
        default=300,
        metavar="S",
        help="time limit written into instances.csv (default 300 seconds)",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new or empty folder")


def add_certify(parser: argparse.ArgumentParser) -> None:
    """Add every option of ``certify``."""
    from prune_verify.certify.committed import add_committed

    _add_sources(parser)
    add_committed(parser)
    parser.add_argument("--challenge", metavar="FILE|HEX", help="the auditor's nonce")
    parser.add_argument("--supersedes", type=Path, metavar="CERTIFICATE", help="an earlier one that this one replaces")
    parser.add_argument(
        "--withdrawn",
        type=int,
        default=0,
        metavar="N",
        help="records and classes of it that were taken back (default 0)",
    )
    _add_measurements(
        parser, "what measure wrote with --out: its numbers are stated with the digest of the file, and never proved"
    )
    parser.add_argument("--days", type=int, default=365, metavar="N", help="validity from now, in days (default 365)")
    parser.add_argument(
        "--cross-check",
        type=int,
        default=10,
        metavar="N",
        help="forget claims to cross-check with auto_LiRPA, evenly spread (default 10)",
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=10.0,
        metavar="S",
        help="seconds of branch and bound, and of each solver query, for one record (default 10)",
    )
    parser.add_argument(
        "--engine",
        default="auto_lirpa",
        metavar="NAME",
        help="what looks for slopes: auto_lirpa (the default), or none: rule crown, splits and z3 alone",
    )
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes that prove (default 1)")
    parser.add_argument("--cluster", metavar="tcp://HOST:PORT", help="a Dask scheduler whose workers prove instead")
    parser.add_argument(
        "--cache", type=Path, metavar="DIR", help="keep what was found here, by content; a killed run goes on from it"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of what is drawn at random (default 0)")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="where statement.json, evidence/ and openings.json go"
    )


def _add_measurements(parser: argparse.ArgumentParser, text: str) -> None:
    """The option for measurement files, of the verbs that state them and show them."""
    parser.add_argument("--measurements", type=Path, action="extend", nargs="+", default=[], metavar="FILE", help=text)


def add_answers(parser: argparse.ArgumentParser) -> None:
    """What ``verify`` writes beside its answer."""
    parser.add_argument(
        "--verdict-out", type=Path, metavar="NAME.verdict.json", help="a signed verdict for third parties"
    )
    parser.add_argument("--auditor-key", metavar="FILE|URI", help="the key that signs it")
    add_secret(parser, "passphrase or PIN")
    parser.add_argument("--report", type=Path, metavar="OUT.html", help="a report for people, one self-contained file")
    parser.add_argument("--report-json", type=Path, metavar="OUT.json", help="the same report as data")
    parser.add_argument("--test", metavar="RECORDS", help="held-out records for the report's before-and-after table")
    parser.add_argument("--learning", type=Path, metavar="learning.json", help="learning curves for the report")
    _add_measurements(parser, "measurement files for the report, besides those in measurements/ beside the certificate")


def add_verdict(parser: argparse.ArgumentParser) -> None:
    """Add every option of ``verdict``."""
    parser.add_argument("action", choices=["check"], help="the one action")
    parser.add_argument("file", type=Path, metavar="NAME.verdict.json", help="as `verify --verdict-out` wrote it")
    parser.add_argument(
        "--trust",
        type=Path,
        required=True,
        metavar="TRUST.json",
        help="your store; the signer needs role auditor in it",
    )
    parser.add_argument(
        "--certificate", type=Path, metavar="NAME.unlearn.json", help="it must be about this certificate"
    )
    parser.add_argument("--policy", type=Path, metavar="POLICY.toml", help="it must have been judged by this policy")
    parser.add_argument("--base", type=Path, metavar="BASE.onnx", help="it must be about this base network")
    parser.add_argument("--patched", type=Path, metavar="PATCHED.onnx", help="it must be about this patched network")
    parser.add_argument("--at-time", metavar="T", help="judge keys at this time, YYYY-MM-DDTHH:MM:SSZ (default: now)")
    parser.add_argument(
        "--max-age-days", type=int, metavar="N", help="refuse a verdict that judged validity more than N days ago"
    )


def add_encode(parser: argparse.ArgumentParser) -> None:
    """Add every option of ``encode``."""
    parser.add_argument("table", type=Path, metavar="TABLE.csv", help="the training set, with a header")
    parser.add_argument("--label-column", required=True, metavar="NAME", help="the column to be predicted")
    parser.add_argument("--out", type=Path, required=True, metavar="ENCODING.json", help="never overwritten")


def add_prove(parser: argparse.ArgumentParser) -> None:
    """Add every option of ``prove``."""
    parser.add_argument("network", type=Path, metavar="NET.onnx", help="the network that the property is about")
    parser.add_argument("property", type=Path, metavar="PROPERTY.vnnlib", help="what no input may do, in VNN-LIB 1.0")
    parser.add_argument("--proof", type=Path, metavar="P", help="write the proof of an unsat answer here")
    parser.add_argument(
        "--counterexample",
        type=Path,
        metavar="C",
        help="write the counterexample of a sat answer here, in VNN-COMP's form",
    )
    parser.add_argument("--timeout", type=float, default=60.0, metavar="S", help="seconds (default 60)")
    parser.add_argument(
        "--arithmetic", choices=ARITHMETICS, default="real", help="arithmetic of the claim (default real)"
    )


def add_bench(parser: argparse.ArgumentParser) -> None:
    """Add every option of ``bench``."""
    parser.add_argument(
        "what",
        choices=["chain", "repair", "unlearning", "check", "prove", "claims", "vectors"],
        help="what is measured",
    )
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="folder with mnist/, adult/, vnncomp/, vectors/ (default: digits)"
    )
    parser.add_argument("--train", metavar="RECORDS", help="repair: records of your own as well (npz, csv or idx)")
    parser.add_argument("--test", metavar="RECORDS", help="repair: test records of the same kind")
    parser.add_argument("--label-column", metavar="NAME", help="repair: of csv files")
    parser.add_argument("--quick", action="store_true", help="smaller sizes")
    parser.add_argument("--full", action="store_true", help="unlearning: the sizes of the published table")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where it writes (default: a temporary folder)")
    parser.add_argument(
        "--cache", type=Path, metavar="DIR", help="unlearning: keep networks here; a run that was ended goes on from it"
    )
