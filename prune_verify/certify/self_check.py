"""What the checker needs to judge a statement before it is written: a key for one run, a policy of what is claimed.

The policy permits what only the auditor can judge (conflicts, assumptions, ages), so that the checker refuses
exactly what does not follow from the files.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from prune_verify.checker.encoding import format_decimal
from prune_verify.checker.policy import ROLES, TrustedKey, TrustStore, emit_trust
from prune_verify.request import Request
from prune_verify.signing import public_half, sign_payload

__all__ = ["self_check_files"]

_ANY_WIDTH = Fraction(2**60)  # of a band; gates that hold a margin state their own

_POLICY = """\
[domain]
lower = [{lower}]
upper = [{upper}]

[keys]
min_trust_version = 1
min_prover_signatures = 1
min_auditor_signatures = 0
require_bound_keys = false

[claims]
min_forget_radius = {radius}
min_retained_radius = {retained}
min_margin = {margin}
max_delta = {delta}
max_band_width = {band}
required_for_records = [{records}]
required_for_class = [{classes}]
arithmetics = [{arithmetics}]
permitted_assumptions = ["z3_unsat:*"]
min_proved_share = 1

[records]
max_conflicts = 1000000000
max_slab_share = 1
max_already_wrong_share = 1
min_forget_records = 1
min_retain_records = 1
encoding_sha256 = "{encoding}"
require_commitment = false
require_countersignature = false

[freshness]
max_age_days = 1000000
require_challenge = false
require_superseded = false
max_withdrawn = 0

[limits]
max_model_bytes = 1073741824
max_evidence_bytes = 268435456
max_records = 16777216
max_seconds = 1000000000
"""


def _policy(request: Request) -> str:
    def listed(names: tuple[str, ...]) -> str:
        return ", ".join(f'"{name}"' for name in names)

    zero = request.margin * 0
    of_classes = ("forget_class", "retain_other_labels")
    return _POLICY.format(
        lower=", ".join(format_decimal(v) for v in request.domain.lower),
        upper=", ".join(format_decimal(v) for v in request.domain.upper),
        radius=format_decimal(request.radius or zero),
        retained=format_decimal(request.retained_radius or zero),
        margin=format_decimal(request.margin),
        delta=format_decimal(request.delta or zero),
        band=format_decimal(_ANY_WIDTH if request.band is None else request.band[1] - request.band[0]),
        records=listed(tuple(kind for kind in request.claims if kind not in of_classes)),
        classes=listed(tuple(kind for kind in request.claims if kind in of_classes)),
        arithmetics=listed(request.arithmetics),
        encoding=request.encoding_sha256 or "none",
    )


def self_check_files(
    folder: Path, statement: bytes, request: Request, commitment: bytes | None = None
) -> tuple[Path, Path, Path, Path | None]:
    """Write certificate, trust store and policy for one run of the checker.

    Args:
        folder: where they go.
        statement: canonical bytes.
        request: what was asked.
        commitment: statement of the training set's commitment, signed here by the same key, or None.

    Returns:
        Paths of the certificate, the trust store, the policy, and the commitment.

    """
    key = Ed25519PrivateKey.generate()
    now = datetime.now(UTC).replace(microsecond=0)
    start, end = now - timedelta(days=1), now + timedelta(days=1)
    trusted = TrustedKey(public_half(key), "self-check", ("prover",), start, end)
    paths = folder / "self.unlearn.json", folder / "trust.json", folder / "policy.toml"
    paths[0].write_bytes(sign_payload(statement, key))
    paths[1].write_bytes(emit_trust(TrustStore(1, end, (trusted,), dict.fromkeys(ROLES, 1))))
    paths[2].write_text(_policy(request))
    if commitment is None:
        return *paths, None
    committed = folder / "self.commitment.json"
    committed.write_bytes(sign_payload(commitment, key))
    return *paths, committed
