"""The options of ``repair``: what to forget, the threat model, the families, and streams of requests."""

from __future__ import annotations

import argparse
from pathlib import Path

__all__ = ["add_repair", "is_stream"]

_OF_STREAMS = ("onto", "withdraw", "test", "retrain_seconds", "prove_seconds")


def add_repair(parser: argparse.ArgumentParser) -> None:
    """Add every option of ``repair``.

    Args:
        parser: of the verb.

    """
    parser.add_argument("base", type=Path, metavar="BASE.onnx", help="the network before the request")
    parser.add_argument(
        "--forget", metavar="RECORDS", help="records to forget: npz, csv, or IMAGES,LABELS[:indices.txt]"
    )
    parser.add_argument(
        "--forget-class", type=int, action="append", default=[], metavar="C", help="a label to forget (repeatable)"
    )
    parser.add_argument("--retain", metavar="RECORDS", help="records that must stay as they are")
    parser.add_argument("--label-column", metavar="NAME", help="label column of csv files")
    parser.add_argument("--encoding", type=Path, metavar="ENCODING.json", help="apply this encoding to csv files")
    parser.add_argument(
        "--threat-model", type=Path, metavar="T.toml", help="what is to be met; options here win (default: as they say)"
    )
    families = ["auto", "box", "class-cap", "linear-region", "learned"]
    parser.add_argument(
        "--family",
        choices=families,
        default="auto",
        help="of patches (default: auto: box, or class-cap for classes)",
    )
    _add_families(parser.add_argument_group("options of one family"))
    _add_stream(parser.add_argument_group("streams of requests"))
    parser.add_argument("--domain", metavar="LO,HI|FILE", help="input domain; default 0,1 when all data lie in it")
    parser.add_argument(
        "--radius", metavar="R", help="of the forget balls, in input units (default: a tenth of the domain's width)"
    )
    parser.add_argument(
        "--retained-radius",
        metavar="R",
        help="of the retained balls, in input units (default: a twentieth of that width)",
    )
    parser.add_argument(
        "--margin",
        metavar="M",
        help="least margin of every forget claim, in logits (default: the median of the base's own errors, or 0.1)",
    )
    parser.add_argument("--cover", type=int, metavar="N", help="separating coordinates per retained record (default 2)")
    parser.add_argument(
        "--delta", metavar="D", help="family learned: largest change of a logit on retained balls (default 0.1)"
    )
    parser.add_argument("--reference", default="", help="opaque reference of the request")
    parser.add_argument("--strict", action="store_true", help="exit 3 when a line of the threat model is not met")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of what is drawn at random (default 0)")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="where patched.onnx, patch.json and request.json go"
    )


def is_stream(options: argparse.Namespace) -> bool:
    """Whether the request is one of a stream.

    Args:
        options: of ``repair``, parsed.

    """
    return options.stream or any(getattr(options, name) is not None for name in _OF_STREAMS)


def _add_families(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--site",
        action="append",
        metavar="SITE",
        help="box: what gates read: input (default), relu-0, ... (repeatable)",
    )
    group.add_argument(
        "--shifts",
        type=int,
        metavar="PIXELS",
        help="box, linear-region: forget copies shifted by up to so many pixels as well",
    )
    group.add_argument("--image", metavar="HxW", help="with --shifts: what picture a flat row is")
    group.add_argument(
        "--minimal",
        type=float,
        nargs="?",
        const=10.0,
        metavar="SECONDS",
        help="box: seek the smallest coordinate set of each gate with z3, for so many seconds (default 10)",
    )
    group.add_argument(
        "--redirect",
        choices=["misclassify", "non-member"],
        help="box, learned: the label loses (default), or its margin is as in networks that never saw the record",
    )
    group.add_argument(
        "--out-margins", type=Path, metavar="FILE.npz", help="margins [models, records] of such networks"
    )
    group.add_argument("--non-members", metavar="RECORDS", help="records that the base never saw, instead")
    group.add_argument("--redirect-key", type=Path, metavar="FILE", help="key of the draws (default: a new one)")
    group.add_argument(
        "--clusters", type=int, metavar="K", help="linear-region: gates for K representatives of the records only"
    )
    group.add_argument("--concept", action="store_true", help="learned: the records are a sample of what is to go")
    group.add_argument("--checkpoint", type=Path, metavar="FILE", help="learned: keep training here, and go on from it")
    group.add_argument(
        "--device",
        choices=["auto", "cpu", "cuda"],
        help="learned: where to train; auto (without this option): on a GPU whose bounds agree with the CPU's, if any",
    )


def _add_stream(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--stream", action="store_true", help="begin a stream: later requests go --onto this folder")
    group.add_argument("--onto", type=Path, metavar="DIR", help="add this request to those of a folder")
    group.add_argument(
        "--withdraw", action="append", metavar="REFERENCE", help="with --onto: take a request back (repeatable)"
    )
    group.add_argument("--test", metavar="RECORDS", help="rows on which to count changed outputs")
    group.add_argument(
        "--most-patch-share",
        type=float,
        default=0.5,
        metavar="SHARE",
        help="it is time to retrain when the patch is a greater share of the bytes (default 0.5)",
    )
    group.add_argument(
        "--most-latency",
        type=float,
        default=4.0,
        metavar="FACTOR",
        help="or when latency is more times the base's (default 4)",
    )
    group.add_argument(
        "--most-hits",
        type=float,
        default=0.001,
        metavar="SHARE",
        help="or when a greater share of test rows is changed (default 0.001)",
    )
    group.add_argument(
        "--retrain-seconds", type=float, metavar="S", help="seconds that retraining takes, for comparison"
    )
    group.add_argument("--prove-seconds", type=float, metavar="S", help="seconds that certify took since, added up")
