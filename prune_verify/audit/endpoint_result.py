"""The verdict of an endpoint audit: what was asked and answered, exact bounds, and what no such audit can find.

Source: certs/SPEC.md sections 10.4 and 10.5; THREATS section 0 (game 2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from prune_verify.audit.endpoint_challenges import KINDS, Challenge
from prune_verify.audit.endpoint_options import Demands
from prune_verify.audit.endpoint_protocol import Address, EndpointError
from prune_verify.audit.endpoint_state import RIGHT, UNDRAWN, Outcome
from prune_verify.audit.endpoint_statistics import Share, detection, least_trials
from prune_verify.checker.encoding import format_decimal
from prune_verify.checker.verdict import REJECTED, UNDECIDED, VERIFIED, Check, Verdict

__all__ = ["LIMITS", "Audited", "Tally", "concluded"]

LIMITS = (
    "a server that recognises the auditor, by address, account or what is asked, and answers others otherwise",
    "a share of deviating answers below the bound, all of which may lie on one input",
    "what is served before the first query and after the last",
)
_EXAMPLES = 3  # of each kind


@dataclass
class _Count:
    """Of one kind of region, or of all."""

    queries: int = 0
    undrawn: int = 0
    open: int = 0
    telling: int = 0
    requests: int = 0
    deviating: int = 0
    deviations: int = 0


@dataclass
class Tally:
    """Counts outcomes request by request.

    Args:
        confidence: of intervals.
        failure: what ended the audit early, or None.
        counts: of outcomes by kind of region.
        examples: of deviations, the first few.

    """

    confidence: float
    failure: EndpointError | None = None
    counts: dict[str, _Count] = field(default_factory=lambda: {kind: _Count() for kind in (*KINDS, "overall")})
    examples: list[dict[str, object]] = field(default_factory=list)

    @property
    def answered(self) -> int:
        """Queries that were answered."""
        return self.counts["overall"].queries

    def share(self, kind: str) -> Share:
        """Deviating requests of a kind."""
        count = self.counts[kind]
        return Share(count.requests, count.deviating, self.confidence)

    def add(self, queries: Sequence[tuple[int, str, Challenge | None, Outcome]]) -> None:
        """Count the queries of one request: (number, kind, challenge, outcome) of each."""
        for name, count in self.counts.items():
            rows = [row for row in queries if name in (row[1], "overall")]
            answered = [row for row in rows if row[3] is not None and row[3] != UNDRAWN]
            wrong = [row for row in answered if row[3] != RIGHT]
            count.queries += len(answered)
            count.undrawn += sum(row[3] == UNDRAWN for row in rows)
            count.open += sum(row[3] is None for row in rows)
            count.telling += sum(row[2] is not None and row[2].telling for row in answered)
            count.requests += bool(answered)
            count.deviating += bool(wrong)
            count.deviations += len(wrong)
        for index, kind, challenge, outcome in queries:
            if isinstance(outcome, tuple) and sum(e["kind"] == kind for e in self.examples) < _EXAMPLES:
                mode = "" if challenge is None else challenge.mode
                found = {"query": index, "kind": kind, "mode": mode, "expected": outcome[0], "got": outcome[1]}
                self.examples.append(found)


@dataclass(frozen=True)
class Audited:
    """All that the result is made of.

    Args:
        address: of the model.
        demands: of the auditor.
        seed: no longer secret.
        own_seed: the auditor chose it.
        outputs: names of the outputs that were compared.
        datatype: of the inputs.
        regions: the kinds that a bound is demanded for.
        widest: the widest enclosure of a logit that was used.
        tally: the counts.

    """

    address: Address
    demands: Demands
    seed: str
    own_seed: bool
    outputs: tuple[str, ...]
    datatype: str
    regions: tuple[str, ...]
    widest: float
    tally: Tally


def _percent(value: float) -> str:
    return f"{100 * value:.3g} %"


def _check(audited: Audited, kind: str) -> Check:
    """The roster's line of one kind of region."""
    tally, demands = audited.tally, audited.demands
    count, share = tally.counts[kind], tally.share(kind)
    text = f"{count.queries} queries, {count.deviations} deviations"
    text += f", at most {_percent(share.bound)} deviate (confidence {_percent(demands.confidence)})"
    text += f", {count.telling} would tell the base" if kind in audited.regions else ""
    text += f"; {count.undrawn} not counted: near a tie, or none found" if count.undrawn else ""
    name, path = f"audit {kind}", f"audit/{kind}"
    if count.deviations:
        shown = [e for e in tally.examples if e["kind"] == kind]
        text += "".join(f"; query {e['query']}: expected {e['expected']}, got {e['got']}" for e in shown)
        return Check(name, "FAIL", text, "E_DEVIATION", path)
    if kind in audited.regions and share.bound > demands.max_deviation:
        least = least_trials(demands.max_deviation, demands.confidence)
        text += (
            f"; {least} requests without a deviation are needed for {_percent(demands.max_deviation)}, see --queries"
        )
        return Check(name, "UNDECIDED", text, "E_FEW_QUERIES", path)
    if kind in audited.regions and not count.telling:
        return Check(name, "UNDECIDED", f"{text}: the base could be served and not be told", "E_POWER", path)
    return Check(name, "PASS", text)


def _roster(audited: Audited) -> list[Check]:
    tally, served = audited.tally, ", ".join(audited.outputs)
    allowed = "as given" if audited.demands.tolerance is not None else "what float32 may round"
    spoken = f"{audited.address.url} answers in the protocol: {audited.datatype}, {served}"
    checks = [Check("endpoint", "PASS", f"{spoken}; logits within {audited.widest:.2g} ({allowed})")]
    checks += [_check(audited, kind) for kind in KINDS if tally.counts[kind].queries or kind in audited.regions]
    if not audited.regions:
        detail = "no forget record, gate or forgotten class at hand to ask about: give --forget or --evidence"
        checks.append(Check("audit forget", "UNDECIDED", detail, "E_DATA_MISSING", "audit/forget"))
    if tally.failure is not None:
        detail = f"{tally.counts['overall'].open} queries not answered: {tally.failure}"
        checks.append(Check("endpoint", "UNDECIDED", detail, tally.failure.code, tally.failure.path))
    return checks


def _warnings(audited: Audited) -> tuple[str, ...]:
    found = [f"no audit finds {limit}" for limit in LIMITS]
    if audited.own_seed:
        found.append("the seed was given: the bounds hold only if the server could not know it")
    if audited.address.in_the_clear:
        found.append("plain http: whoever sits between here and the server may have answered in its place")
    return tuple(found)


def concluded(verdict: Verdict, audited: Audited) -> tuple[Verdict, dict[str, object]]:
    """The verdict on the endpoint, and its object.

    Args:
        verdict: of the certificate.
        audited: what was found.

    Returns:
        The certificate's verdict with the audit's roster added, and the object of ``verify --json`` with ``audit``.

    """
    checks = _roster(audited)
    refused = [check for check in checks if check.status == "FAIL"]
    unsettled = [check for check in checks if check.status == "UNDECIDED"]
    word, code = VERIFIED, "OK"
    if refused:
        word, code = REJECTED, refused[0].code
    elif verdict.word != VERIFIED:
        word, code = UNDECIDED, verdict.code
    elif unsettled:
        word, code = UNDECIDED, unsettled[-1].code if audited.tally.failure is not None else unsettled[0].code
    warnings = (*verdict.warnings, *_warnings(audited))
    if verdict.word != VERIFIED:
        warnings = (*warnings, f"the certificate is {verdict.word} ({verdict.code}); the audit went on as asked")
    ended = replace(verdict, word=word, code=code, checks=(*verdict.checks, *checks), warnings=warnings)
    return ended, ended.to_json() | {"audit": _object(audited)}


def _kind_object(audited: Audited, kind: str) -> dict[str, object]:
    tally, demands = audited.tally, audited.demands
    count, share = tally.counts[kind], tally.share(kind)
    lower, upper = share.interval
    return {
        "queries": count.queries,
        "requests": count.requests,
        "deviations": count.deviations,
        "deviatingRequests": count.deviating,
        "notCounted": count.undrawn,
        "notAnswered": count.open,
        "tellingFromBase": count.telling,
        "interval": {"lower": lower, "upper": upper},
        "upperBound": share.bound,
        "detectsMaxDeviation": detection(demands.max_deviation, count.requests),
    }


def _object(audited: Audited) -> dict[str, object]:
    demands, tally = audited.demands, audited.tally
    tolerance = None if demands.tolerance is None else format_decimal(demands.tolerance)
    return {
        "endpoint": audited.address.url,
        "seed": audited.seed,
        "queries": tally.answered,
        "deviations": tally.counts["overall"].deviations,
        "batch": demands.batch,
        "datatype": audited.datatype,
        "outputs": list(audited.outputs),
        "tolerance": {"given": tolerance, "widestInterval": audited.widest},
        "intervals": {kind: _kind_object(audited, kind) for kind in (*KINDS, "overall")},
        "power": {
            "confidence": demands.confidence,
            "maxDeviation": demands.max_deviation,
            "leastRequests": least_trials(demands.max_deviation, demands.confidence),
            "regions": list(audited.regions),
        },
        "examples": tally.examples,
        "failure": None if tally.failure is None else str(tally.failure),
        "limits": list(LIMITS),
    }
