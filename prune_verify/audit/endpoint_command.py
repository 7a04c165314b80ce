"""The verb ``audit``: is what an endpoint serves the network of a certificate?

1. ``verify``, unchanged; a certificate that is not VERIFIED ends the audit as it ends ``verify``
2. the endpoint: ready, has the model, speaks its data type and shape; one query of no account (exit 2 if not)
3. fresh challenges in random order, each compared with what the certified network answers
4. exact bounds of the deviating share for each kind of region, and the verdict

VERIFIED: no deviation, and in forget regions the upper bound is at most what the auditor accepts. One deviation:
REJECTED. Queries that were not answered, or too few of them: UNDECIDED.

Source: FORMATS section 3; certs/SPEC.md section 10; THREATS section 0 (game 2), T1, T9, T10.
"""

from __future__ import annotations

import argparse
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from prune_verify.audit.endpoint_answers import Judge
from prune_verify.audit.endpoint_challenges import Challenge, Deck, counts_of_kinds
from prune_verify.audit.endpoint_client import Client, Manners, read_headers
from prune_verify.audit.endpoint_ground import Ground, read_ground
from prune_verify.audit.endpoint_options import Demands, demands_of
from prune_verify.audit.endpoint_protocol import (
    Address,
    EndpointError,
    MalformedAnswerError,
    Wire,
    agree,
    parse_address,
    read_answers,
    request_body,
)
from prune_verify.audit.endpoint_result import Audited, Tally, concluded
from prune_verify.audit.endpoint_state import RIGHT, UNDRAWN, State, read_state
from prune_verify.checker.__main__ import run_verify
from prune_verify.checker.encoding import Json, canonical_json, format_decimal, sha256_hex
from prune_verify.checker.verdict import VERIFIED, Verdict
from prune_verify.progress import Progress

__all__ = ["audit_command"]

_BLOCK = 512
_SAVE_EVERY = 1.0


def audit_command(
    options: argparse.Namespace, progress: Progress, say: Callable[[str], None] = lambda _: None
) -> tuple[int, str, object]:
    """Audit an endpoint.

    Args:
        options: the arguments of ``audit``.
        progress: called after every request.
        say: called with a few words before each long step.

    Returns:
        Exit code, text for a person, one object for ``--json``.

    Raises:
        CheckError: could not run (exit 2): bad options or files, an endpoint that is not reached, lacks the model or
            speaks otherwise before any query was answered.

    """
    address, demands = parse_address(options.endpoint), demands_of(options)
    manners = Manners(
        rate=options.rate,
        timeout=options.timeout,
        retries=options.retries,
        headers={} if options.headers is None else read_headers(options.headers),
        authorities=options.ca,
        proxy=options.proxy,
    )
    verdict = run_verify(options, say)  # (1)
    if verdict.word != VERIFIED and not options.insecure_unverified_certificate:
        return verdict.exit_code, verdict.text(), verdict.to_json() | {"audit": None}
    run = _connected(options, address, demands, manners, read_ground(options, verdict))
    return _finished(run, verdict, options, _asked(run, options, progress))


@dataclass(frozen=True, eq=False)
class _Run:
    """What an audit works with."""

    address: Address
    demands: Demands
    ground: Ground
    client: Client
    wire: Wire
    judge: Judge
    deck: Deck
    counts: dict[str, int]
    state: State


def _connected(
    options: argparse.Namespace, address: Address, demands: Demands, manners: Manners, ground: Ground
) -> _Run:
    """Step 2."""
    only_labels = options.label_output is not None and options.output is None
    wire = Wire(
        input_name=options.input or ground.input_name,
        row=ground.patched.input_shape,
        labels=ground.patched.labels,
        output=None if only_labels else options.output or ground.output_name,
        label_output=options.label_output,
        datatype=options.datatype,
    )
    served = {"logits": wire.output is not None, "labels": wire.label_output is not None}
    judge = Judge(ground.patched, demands.tolerance, **served)
    counts = counts_of_kinds(demands.queries, demands.shares, ground)
    audit = _identity(address, demands, ground, wire)
    state = read_state(options.state, audit, demands.seed, demands.queries, secrets.token_hex(32))
    deck = Deck(ground, judge, bytes.fromhex(state.seed), counts)
    client = Client(address, manners)
    try:
        client.require_ready()
        wire = agree(wire, client.metadata(), demands.batch)
        probe = deck.probe()
        if probe is not None:
            body = request_body(wire, np.stack([probe.x] * demands.batch))
            read_answers(wire, client.infer(body, wire.most_bytes(demands.batch)), demands.batch)
    except MalformedAnswerError as error:
        raise EndpointError(f"first answer: {error.path}", error.rule, error.expected, error.got) from None
    return _Run(address, demands, ground, client, wire, judge, deck, counts, state)


def _identity(address: Address, demands: Demands, ground: Ground, wire: Wire) -> str:
    """Digest of everything that the challenges and the outcomes depend on, but the seed."""
    sets: list[Json] = [
        None if rows is None else sha256_hex(rows.x.tobytes() + rows.y.tobytes())
        for rows in (ground.forget, ground.retain)
    ]
    document: Json = {
        "endpoint": address.url,
        "certificate": ground.source,
        "sets": sets,
        "gates": len(ground.gates),
        "queries": demands.queries,
        "shares": [format_decimal(share) for share in demands.shares],
        "batch": demands.batch,
        "tolerance": None if demands.tolerance is None else format_decimal(demands.tolerance),
        "names": [wire.input_name, wire.output, wire.label_output],
    }
    return sha256_hex(canonical_json(document))


def _blocks(run: _Run) -> Iterator[list[range]]:
    """Requests, as ranges of query numbers, in blocks that are drawn together."""
    batch, queries = run.demands.batch, run.demands.queries
    requests = [range(start, min(start + batch, queries)) for start in range(0, queries, batch)]
    size = max(1, _BLOCK // batch)
    yield from (requests[start : start + size] for start in range(0, len(requests), size))


def _asked(run: _Run, options: argparse.Namespace, progress: Progress) -> Tally:
    """Step 3: ask what has not been asked yet; what is known is written down at least every second and at the end."""
    tally, saved = Tally(run.demands.confidence), time.monotonic()
    try:
        for requests in _blocks(run):
            numbers = [index for request in requests for index in request]
            challenges = dict(zip(numbers, run.deck.draw(numbers), strict=True))
            for request in requests:
                chosen = [challenges[index] for index in request]
                if tally.failure is None:
                    tally.failure = _ask(run, request, chosen)
                tally.add(
                    [(i, run.deck.kind(i), c, run.state.outcomes[i]) for i, c in zip(request, chosen, strict=True)]
                )
                progress("audit", request[-1] + 1, run.demands.queries)
                if time.monotonic() - saved > _SAVE_EVERY:
                    run.state.write(options.state)
                    saved = time.monotonic()
    finally:
        run.state.write(options.state)
    return tally


def _ask(run: _Run, request: range, chosen: list[Challenge | None]) -> EndpointError | None:
    """One request, unless all of it has been answered before; a failure of transport is handed back."""
    outcomes = run.state.outcomes
    asked = [challenge for challenge in chosen if challenge is not None]
    if all(outcomes[index] is not None for index in request):
        return None
    for index, challenge in zip(request, chosen, strict=True):
        outcomes[index] = UNDRAWN if challenge is None else None
    if not asked:
        return None
    try:
        body = request_body(run.wire, np.stack([challenge.x for challenge in asked]))
        answers = read_answers(run.wire, run.client.infer(body, run.wire.most_bytes(len(asked))), len(asked))
    except MalformedAnswerError as error:
        for challenge in asked:
            run.state.deviates(challenge.index, f"{error.path}: {error.expected}", error.got)
        return None
    except EndpointError as error:
        return error
    for challenge, answer in zip(asked, answers, strict=True):
        found = challenge.expected.deviation(answer)
        if found is None:
            outcomes[challenge.index] = RIGHT
        else:
            run.state.deviates(challenge.index, *found)
    return None


def _finished(run: _Run, verdict: Verdict, options: argparse.Namespace, tally: Tally) -> tuple[int, str, object]:
    """Step 4."""
    if tally.failure is not None and not tally.answered:
        raise tally.failure
    audited = Audited(
        address=run.address,
        demands=run.demands,
        seed=run.state.seed,
        own_seed=options.seed is not None,
        outputs=run.wire.outputs,
        datatype=run.wire.datatype,
        regions=tuple(kind for kind in ("forget", "class") if run.counts.get(kind)),
        widest=run.judge.widest,
        tally=tally,
    )
    ended, data = concluded(verdict, audited)
    return ended.exit_code, ended.text(), data
