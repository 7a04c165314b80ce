"""The keyword arguments of the calls: what the command line calls options, under the same names.

``certs/SPEC.md`` and ``prune-verify VERB --help`` say what each does; lengths (radii) are in input units, margins and
``delta`` in units of logits. Nothing here is looked at when the package is imported.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias, TypedDict

if TYPE_CHECKING:  # torch and numpy are known to type checkers here; a user's own objects bring them at run time
    import numpy as np
    import numpy.typing as npt
    from torch import Tensor, nn
    from torch.utils.data import DataLoader, Dataset


__all__ = [
    "Array",
    "AuditOptions",
    "CertifyOptions",
    "ModelLike",
    "Number",
    "PathLike",
    "RecordsLike",
    "RepairOptions",
    "RequestOptions",
    "SignOptions",
    "TrustOptions",
    "VerifyOptions",
]

PathLike: TypeAlias = "str | Path"
Number: TypeAlias = "int | float | Decimal | Fraction | str"
Array: TypeAlias = "npt.NDArray[np.generic] | Tensor"
ModelLike: TypeAlias = "PathLike | bytes | nn.Module"
RecordsLike: TypeAlias = "PathLike | tuple[Array, Array] | DataLoader[object] | Dataset[object]"
Interval: TypeAlias = "tuple[Number, Number] | PathLike"


class _Tables(TypedDict, total=False):
    """How csv files are read."""

    label_column: str
    encoding: PathLike


class _Work(TypedDict, total=False):
    """How work is done."""

    seed: int
    progress: bool


class RepairOptions(_Tables, _Work, total=False):
    """Options of :func:`~prune_verify.api.repair`.

    Args:
        retain: records that must stay as they are.
        forget_class: labels that must never be answered.
        example: float32 rows [n, *input shape] to export an ``nn.Module`` with; by default the first record.
        radius: of the balls around forgotten records, in input units.
        retained_radius: of those around retained records.
        margin: by which the forgotten label has to lose, in logits.
        delta: greatest change of a logit on retained balls (families that add to logits).
        cover: separating coordinates per retained record.
        domain: ``(low, high)`` of all inputs, or a JSON file; by default (0, 1) where all records lie in it.
        family: of patches; ``box`` for records and ``class-cap`` for classes by default.
        threat_model: a TOML file with all of these numbers.
        strict: refuse a patch that misses a line of the threat model.
        reference: opaque reference of the request, at most 512 characters.
        seed: of everything that is drawn.
        progress: show a bar on standard error.

    The others belong to one family, or to streams of requests: see ``prune-verify repair --help``.

    """

    retain: RecordsLike
    forget_class: int | Sequence[int]
    example: Array
    radius: Number
    retained_radius: Number
    margin: Number
    delta: Number
    cover: int
    domain: Interval
    family: Literal["auto", "box", "class-cap", "linear-region", "learned"]
    threat_model: PathLike
    strict: bool
    reference: str
    site: str | Sequence[str]
    shifts: int
    image: str
    minimal: float | bool
    redirect: Literal["misclassify", "non-member"]
    out_margins: PathLike
    non_members: RecordsLike
    redirect_key: PathLike
    clusters: int
    concept: bool
    checkpoint: PathLike
    stream: bool
    onto: PathLike
    withdraw: str | Sequence[str]
    test: RecordsLike
    most_patch_share: float
    most_latency: float
    most_hits: float
    retrain_seconds: float
    prove_seconds: float


class RequestOptions(TypedDict, total=False):
    """What is asked of a network that another tool has changed; see ``prune-verify request --help``."""

    forget_class: int | Sequence[int]
    radius: Number
    retained_radius: Number
    margin: Number
    delta: Number
    band: tuple[Number, Number]
    cover: int
    claims: Sequence[str]
    arithmetic: Sequence[str]
    domain: Interval
    reference: str


class CertifyOptions(RequestOptions, _Tables, _Work, total=False):
    """Options of :func:`~prune_verify.api.certify`.

    Args:
        base: the network before, where the patched one is not a result of :func:`~prune_verify.api.repair`.
        forget: records to be forgotten; likewise.
        retain: records that must stay; likewise.
        request: ``request.json``, where one was written; else it is made of the options of ``prune-verify request``.
        example: float32 rows [n, *input shape] to export modules with; by default the first record.
        out: folder; by default that of the repair.
        challenge: the auditor's nonce, in hex or as a file.
        days: validity from now.
        timeout: seconds of branch and bound, and of each solver query, for one record.
        workers: processes that prove.

    The others are those of ``prune-verify certify --help``.

    """

    base: ModelLike
    forget: RecordsLike
    retain: RecordsLike
    request: PathLike
    example: Array
    out: PathLike
    patch: PathLike
    commitment: PathLike
    commitment_openings: PathLike
    training: RecordsLike
    challenge: PathLike
    supersedes: PathLike
    withdrawn: int
    days: int
    cross_check: int
    timeout: float
    engine: Literal["auto_lirpa", "none"]
    workers: int
    cluster: str
    cache: PathLike


class SignOptions(TypedDict, total=False):
    """Options of :func:`~prune_verify.api.sign`.

    Args:
        out: the certificate; by default ``certificate.unlearn.json`` beside the statement.
        pub: public half of a key that a key service holds.
        passphrase_env: name of the environment variable with the passphrase or PIN.
        add: add a signature to a certificate over the same statement.

    """

    out: PathLike
    pub: PathLike
    passphrase_env: str
    add: bool


class _Inputs(_Tables, total=False):
    """What a check reads beside certificate, trust store and policy."""

    base: PathLike | bytes
    patched: PathLike | bytes
    forget: RecordsLike
    retain: RecordsLike
    evidence: PathLike
    openings: PathLike
    commitment: PathLike
    receipt: PathLike | Sequence[PathLike]
    supersedes: PathLike
    superseded_forget: RecordsLike
    superseded_openings: PathLike
    challenge: PathLike
    exact: bool
    resolve_smt: Literal["z3", "cvc5"]
    at_time: str
    insecure_skip_signature: bool
    insecure_skip_time: bool


class VerifyOptions(_Inputs, total=False):
    """Options of :func:`~prune_verify.api.verify`.

    Args:
        base: the network before; needed unless the certificate is a result of :func:`~prune_verify.api.sign`.
        patched: the deployed network; likewise.
        forget: the forget set, where you may see it; without it the verdict is at most UNDECIDED.
        retain: the retained set; likewise.
        verdict_out: where to write a signed verdict for third parties, with ``auditor_key``.
        report: where to write a report for people (HTML); ``report_json``: the same as data.

    The others are those of ``prune-verify verify --help``.

    """

    verdict_out: PathLike
    auditor_key: PathLike
    passphrase_env: str
    report: PathLike
    report_json: PathLike
    test: RecordsLike
    learning: PathLike


class AuditOptions(_Inputs, total=False):
    """Options of :func:`~prune_verify.api.audit`; see ``prune-verify audit --help``.

    Args:
        queries: how many challenges are sent.
        shares: of forget regions, retained regions and elsewhere.
        max_deviation: accepted share of deviating answers in forget regions.
        confidence: that it is not greater.
        tolerance: allowed difference of a logit; by default what float32 may round.
        rate: requests per second; 0 for no limit.
        timeout: seconds for one request.
        progress: show a bar on standard error.

    """

    queries: int
    shares: tuple[Number, Number, Number]
    max_deviation: Number
    confidence: Number
    tolerance: Number
    batch: int
    seed: str
    state: PathLike
    insecure_unverified_certificate: bool
    input: str
    output: str
    label_output: str
    datatype: Literal["FP32", "FP64"]
    rate: float
    timeout: float
    retries: int
    headers: PathLike
    ca: PathLike
    proxy: str
    progress: bool


class TrustOptions(TypedDict, total=False):
    """Options of :func:`~prune_verify.api.trust`.

    Args:
        policy: where to write the policy; by default ``policy.toml`` beside the store.
        policy_template: the policy to begin with.
        role: of the keys.
        base: the base networks that the keys may speak of; by default any.

    """

    policy: PathLike
    policy_template: Literal["default", "regulator", "internal-audit"]
    role: Literal["prover", "auditor", "log", "witness"]
    base: PathLike | Sequence[PathLike]
