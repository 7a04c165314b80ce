"""``certify --supersedes``: a certificate that replaces an earlier one covers at least what that one covered.

Source: FORMATS section 2 (``supersedes``); MATHS 4.4.
"""

from __future__ import annotations

from pathlib import Path

from prune_verify.certify.errors import CertifyInputError
from prune_verify.certify.issue import Sources
from prune_verify.checker.encoding import read_file, sha256_hex
from prune_verify.checker.envelope import parse_envelope
from prune_verify.checker.patch_json import parse_patch
from prune_verify.checker.statement import parse_statement

__all__ = ["superseded"]

_MOST_BYTES = 2**28


def superseded(path: Path | None, withdrawn: int, sources: Sources) -> str | None:
    """The digest of the payload of the certificate that is replaced, or None where none is.

    Its signature is not checked: it is the owner's own, and the auditor compares digests.

    Args:
        path: of the earlier certificate.
        withdrawn: how many of its records were taken back by those who asked.
        sources: what is to be certified now.

    Raises:
        CheckError: no certificate.
        CertifyInputError: it is about another base, or covers more.

    """
    if path is None:
        if withdrawn:
            text = "--withdrawn: belongs to --supersedes CERTIFICATE"
            raise CertifyInputError(text)
        return None
    envelope = parse_envelope(read_file(path, "earlier certificate", _MOST_BYTES), path.name)
    earlier = parse_statement(envelope.payload, path.name)
    got = sha256_hex(sources.base_bytes)
    if earlier.base_sha256 != got:
        text = f"--supersedes {path}: it is about the base {earlier.base_sha256}, and --base is {got}"
        raise CertifyInputError(text)
    before = 0 if earlier.forget_set is None else earlier.forget_set.size
    now = 0 if sources.forget is None else len(sources.forget)
    if now < before - withdrawn:
        text = (
            f"--supersedes {path}: it covers {before} forget records, and this request {now}; where requests were "
            f"withdrawn, --withdrawn says how many records that were ({before - now})"
        )
        raise CertifyInputError(text)
    classes = () if earlier.patch is None else earlier.patch.forgotten_classes
    patch = None if sources.patch_bytes is None else parse_patch(sources.patch_bytes, "patch.json").patch
    lost = sorted(set(classes) - set(getattr(patch, "forgotten_classes", ())))
    if lost and not withdrawn:
        text = f"--supersedes {path}: it forgets classes {lost}, and this patch does not; --withdrawn takes them back"
        raise CertifyInputError(text)
    return sha256_hex(envelope.payload)
