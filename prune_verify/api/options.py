"""The keyword arguments of the calls: what the command line calls options, under the same names.

``certs/SPEC.md`` and ``prune-verify VERB --help`` say what each does; lengths (radii) are in input units, margins and
``delta`` in units of logits. Nothing here is looked at when the package is imported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias, TypedDict

if TYPE_CHECKING:  # torch and numpy are known to type checkers here; a user's own objects bring them at run time
    import numpy as np
    import numpy.typing as npt
    from torch import Tensor, nn
    from torch.utils.data import DataLoader, Dataset

    from prune_verify.api.measuring import Measurement


__all__ = [
    "Array",
    "AuditOptions",
    "CertifyOptions",
    "MeasureOptions",
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

        site: of family ``box``: what gates read, ``input`` (default), ``relu-0``, ...
        shifts: forget copies that are shifted by so many pixels as well.
        image: ``HxW``, with ``shifts``: what picture a flat row is.
        minimal: seconds of seeking the smallest coordinate set of each gate; True for the default.
        redirect: ``misclassify`` (the label loses) or ``non-member``.
        out_margins: npz file with margins [models, records] of networks that never saw the records.
        non_members: records that the base never saw, instead.
        redirect_key: file with the key of the draws.
        clusters: of family ``linear-region``: gates for so many representatives only.
        concept: of family ``learned``: the records are a sample of what is to go.
        checkpoint: of family ``learned``: keep training here, and go on from it.
        device: of family ``learned``: where to train; by default a GPU whose bounds agree with the CPU's, if any.
        stream: begin a stream; later requests go onto its folder.
        onto: folder of the stream to add this request to.
        withdraw: references of requests to take back, with ``onto``.
        test: records on which to count changed outputs, of streams.
        most_patch_share: share of bytes at which a stream says that it is time to retrain.
        most_latency: factor of the base's latency; likewise.
        most_hits: share of test rows; likewise.
        retrain_seconds: what retraining takes, for comparison.
        prove_seconds: what certify took since, added up.

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
    device: Literal["auto", "cpu", "cuda"]
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
    """What is asked of a network that another tool has changed, as in ``prune-verify request``.

    Args:
        forget_class: labels that must never be answered.
        radius: of the forget balls, in input units.
        retained_radius: of the retained balls.
        margin: least margin of every forget claim, in logits.
        delta: greatest change of a logit on retained balls, for claims ``retain_close``.
        band: ends of the forgotten label's margin, for claims ``band``.
        cover: separating coordinates per retained record, for claims ``minimality``.
        claims: their kinds; by default ``forget`` and ``retain_label``.
        arithmetic: ``binary32`` and ``real`` by default.
        domain: ``(low, high)`` of all inputs, or a JSON file.
        reference: opaque reference of the request.

    """

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
        patch: ``patch.json``; by default the one beside the patched network.
        commitment: of the training set, made before training.
        commitment_openings: what opens it.
        training: the training set as it was committed.
        supersedes: an earlier certificate that this one replaces.
        withdrawn: how many of its records and classes were taken back.
        cross_check: how many forget claims auto_LiRPA bounds as well.
        engine: what looks for slopes.
        cluster: ``tcp://HOST:PORT`` of a Dask scheduler whose workers prove instead.
        cache: folder for what was found, by content; a killed run goes on from it.
        measurements: files that :func:`~prune_verify.api.measure` wrote; their numbers are stated, never proved.

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
    measurements: Sequence[PathLike | Measurement]


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
    """What a check reads beside certificate, trust store and policy.

    Args:
        base: the network before.
        patched: the deployed network.
        forget: the forget set.
        retain: the retained set.
        evidence: folder; by default ``evidence/`` beside the certificate.
        openings: by default ``openings.json`` beside the certificate.
        commitment: of the training set, as you got it before training.
        receipt: of data subjects, whose records must be among the forgotten ones.
        supersedes: the certificate that this one replaces, as you hold it.
        superseded_forget: its forget set.
        superseded_openings: its openings.
        challenge: the nonce that you gave the owner, in hex or as a file.
        exact: compute every bound that decides in integers.
        resolve_smt: solver of your own for what the owner left to z3.
        at_time: judge validity at this time, ``YYYY-MM-DDTHH:MM:SSZ``.
        insecure_skip_signature: show the rest, whoever signed; never more than UNDECIDED.
        insecure_skip_time: show the rest, whatever the dates say; likewise.

    """

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
        auditor_key: the key that signs it.
        passphrase_env: name of the environment variable with its passphrase or PIN.
        report: where to write a report for people (HTML).
        report_json: the same report as data.
        test: held-out records for the report's table.
        learning: learning curves for the report.
        measurements: files for the report, besides those beside the certificate.

    """

    verdict_out: PathLike
    auditor_key: PathLike
    passphrase_env: str
    report: PathLike
    report_json: PathLike
    test: RecordsLike
    learning: PathLike
    measurements: Sequence[PathLike | Measurement]


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
        batch: queries in one request.
        seed: 32 bytes in hex that the server must not know; by default fresh ones.
        state: keep answers here; a killed audit goes on from it.
        insecure_unverified_certificate: go on although the certificate is not VERIFIED.
        input: name of the model's input.
        output: name of the output with the logits.
        label_output: name of an integer output with the label.
        datatype: of inputs, where the server's metadata has none.
        retries: after failures of transport.
        headers: file with lines ``Name: value``, sent with every request.
        ca: file with certificate authorities to believe.
        proxy: URL of an HTTP proxy.

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


class MeasureOptions(_Tables, _Work, total=False):
    """Options of :func:`~prune_verify.api.measure`; each word has some of them.

    Args:
        base: the network before, where the patched one is no result of :func:`~prune_verify.api.repair`.
        out: the measurement file to write, or of ``membership`` the folder; it must not exist.
        patch: of ``disclosure``: ``patch.json``.
        forget: the forget set.
        retain: the retained set.
        test: held-out records.
        public: of ``disclosure``: records of the same population that were not forgotten.
        non_members: of ``membership``: records that the base never saw.
        example: float32 rows [n, *input shape] to export modules with; by default the first record.
        against: of ``relearning`` and ``membership``: other networks by name, as files.
        subgroups: of ``accuracy``: csv or npz file with attributes of the test records.
        subgroup_column: attributes to part by.
        rounds: of ``accuracy``: timings of each network.
        no_cost: of ``accuracy``: leave out latency and memory.
        image: of ``disclosure``: ``HxW``, rows are grey pictures.
        shifts: of ``disclosure``: most pixels of shifted copies.
        domain: of ``disclosure``: ends of every number.
        radius: of forget balls, in input units.
        retained_radius: of retained balls, in input units.
        svg: where to draw.
        modes: of ``relearning``: ``head``, ``full``, ``prototype``, ``strip``.
        records: of ``relearning``: how many forgotten records the attacker has.
        recovered: of ``relearning``: share of the base's accuracy that counts as back.
        retained: of ``relearning``: retained records that the attacker trains on as well.
        others: of ``relearning``: records of the same labels, for benign fine-tuning.
        seeds: of ``relearning``: how many seeds, one control for each.
        control_epochs: of the control.
        control_rate: of the control.
        shadows: of ``membership``: shadow networks, an even number.
        retrained: of ``membership``: genuine retrains.
        ensembles: of ``membership``: networks of each kind, 20 or more.
        family: of ``membership``: how ensembles unlearn.
        epochs: of training.
        batch: records per step.
        rate: learning rate.
        weight_decay: Adam's L2 penalty.
        cache: folder for trained networks, by content; a run that was ended goes on.
        workers: processes that train.
        device: where networks are trained.

    """

    base: ModelLike
    out: PathLike
    patch: PathLike
    forget: RecordsLike
    retain: RecordsLike
    test: RecordsLike
    public: RecordsLike
    non_members: RecordsLike
    example: Array
    against: Mapping[str, PathLike]
    subgroups: PathLike
    subgroup_column: str | Sequence[str]
    rounds: int
    no_cost: bool
    image: str
    shifts: int
    domain: tuple[Number, Number]
    radius: Number
    retained_radius: Number
    svg: PathLike
    modes: Sequence[str]
    records: Sequence[int]
    recovered: Number
    retained: int
    others: int
    seeds: int
    control_epochs: int
    control_rate: Number
    shadows: int
    retrained: int
    ensembles: int
    family: str
    epochs: int
    batch: int
    rate: Number
    weight_decay: float
    cache: PathLike
    workers: int
    device: Literal["auto", "cpu"]


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
