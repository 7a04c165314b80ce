"""Calls around keys, signatures and checks; they need the base install alone (``audit``: the extra ``endpoint``)."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Unpack, cast

from prune_verify.api import options as keywords
from prune_verify.api.errors import RefusalError, refusals
from prune_verify.api.inputs import Inputs
from prune_verify.api.results import Certificate, Key, Statement, TrustStore, Verdict
from prune_verify.api.words import known_only, parsed
from prune_verify.audit.endpoint_options import add_audit
from prune_verify.audit.key_options import add_keygen, add_sign, add_trust
from prune_verify.checker.__main__ import add_verify_arguments, run_verify
from prune_verify.progress import Progress
from prune_verify.verb_options import add_answers

if TYPE_CHECKING:
    from prune_verify.api.options import AuditOptions, PathLike, SignOptions, TrustOptions, VerifyOptions

__all__ = ["audit", "keygen", "sign", "trust", "verify"]

_CARRIED = ("forget", "retain", "label_column", "encoding")
_ANSWERS = ("report", "report_json", "verdict_out", "auditor_key")


def keygen(prefix: PathLike = "owner", *, passphrase_env: str | None = None, algorithm: str | None = None) -> Key:
    """Make a signing key: ``PREFIX.key`` (mode 0600) and ``PREFIX.pub``; never overwrites.

    Args:
        prefix: of both files.
        passphrase_env: name of the environment variable with a passphrase that encrypts the private half.
        algorithm: ``ed25519`` (the default) or ``ecdsa-p256``.

    Returns:
        The key's files.

    Raises:
        RefusalError: one of the files exists, or cannot be written.

    """
    with refusals():
        from prune_verify.audit.key_commands import keygen_command

        given = {"out": prefix, "passphrase_env": passphrase_env, "algorithm": algorithm}
        _, _, found = keygen_command(parsed("keygen", add_keygen, [], given))
    return Key(Path(str(found["key"])), Path(str(found["pub"])), str(found["keyid"]))


def trust(path: PathLike, keys: Mapping[PathLike, str], **options: Unpack[TrustOptions]) -> TrustStore:
    """Take public keys up in an auditor's trust store; a store that is not there is made, with a policy beside it.

    Args:
        path: of the store.
        keys: public keys, as files, and whose they are.
        options: see :class:`~prune_verify.api.options.TrustOptions`.

    Returns:
        The store and the policy; read the policy and set what you demand.

    Raises:
        RefusalError: a key, the store or the policy cannot be used.
        TypeError: an option that there is not.

    """
    known_only("trust", options, keywords.TrustOptions.__annotations__)
    given: dict[str, object] = dict(options)
    template, version = given.pop("policy_template", None), 1
    policy = Path(str(given.get("policy") or Path(path).with_name("policy.toml")))
    with refusals():
        from prune_verify.audit.key_commands import trust_command

        if not Path(path).exists():
            made = {"policy": policy, "policy_template": template}
            trust_command(parsed("trust", _trust_actions, ["init", path], made))
        for key, name in keys.items():
            words = {"key": key, "name": name, "policy": policy if policy.exists() else None}
            _, _, found = trust_command(parsed("trust", _trust_actions, ["add", path], {**given, **words}))
            version = cast("int", found["version"])
    return TrustStore(Path(path), policy, version)


def _trust_actions(parser: argparse.ArgumentParser) -> None:
    listed = parser.add_subparsers(dest="action", required=True)
    add_trust(lambda word, _: listed.add_parser(word))


def sign(statement: Statement | PathLike, *, key: Key | PathLike, **options: Unpack[SignOptions]) -> Certificate:
    """Sign a statement.

    Args:
        statement: what :func:`~prune_verify.api.certify` gave back, or a file.
        key: of :func:`keygen`, a PEM file, or the URI of a key that a token or key service holds.
        options: see :class:`~prune_verify.api.options.SignOptions`.

    Returns:
        The certificate.

    Raises:
        RefusalError: the statement or the key cannot be used, or the certificate exists.
        TypeError: an option that there is not.

    """
    known_only("sign", options, keywords.SignOptions.__annotations__)
    path = statement.path if isinstance(statement, Statement) else Path(statement)
    given: dict[str, object] = {"out": path.with_name("certificate.unlearn.json"), **options}
    given["key"] = key.private if isinstance(key, Key) else key
    with refusals():
        from prune_verify.audit.key_commands import sign_command

        _, _, found = sign_command(parsed("sign", add_sign, [path], given))
    files = statement.files if isinstance(statement, Statement) else None
    return Certificate(Path(str(found["certificate"])), str(found["payloadSha256"]), str(found["keyid"]), files)


def verify(
    certificate: Certificate | PathLike,
    *,
    trust: TrustStore | PathLike,
    policy: PathLike | None = None,
    **options: Unpack[VerifyOptions],
) -> Verdict:
    """Check a certificate as an auditor who trusts nothing that the owner says; the base install is enough.

    What an owner's certificate object carries (paths of networks and records) is read, never believed.

    Args:
        certificate: a file, or what :func:`sign` gave back.
        trust: your trust store, a file or what :func:`trust` gave back.
        policy: your policy; by default the one of :func:`trust`.
        options: see :class:`~prune_verify.api.options.VerifyOptions`; ``base``, ``patched``, ``forget`` and ``retain``
            where the certificate is a file.

    Returns:
        The verdict, true only if VERIFIED. REJECTED and UNDECIDED are answers, no exceptions.

    Raises:
        RefusalError: could not run: a file is missing, or your own trust store or policy cannot be used.
        TypeError: an option that there is not.

    """
    known_only("verify", options, keywords.VerifyOptions.__annotations__)
    with refusals(), TemporaryDirectory(prefix="prune-verify-") as folder:
        given = _inputs(certificate, trust, policy, options, Path(folder))
        words = parsed("verify", _add_verify, [str(given.pop("certificate"))], given)
        if all(getattr(words, name) is None for name in _ANSWERS):
            verdict = run_verify(words)
            return Verdict.of(verdict.text(), verdict.to_json())
        from prune_verify.audit.verify_command import verify_command

        _, text, found = verify_command(words, lambda _: None)
    return Verdict.of(text, found)


def _add_verify(parser: argparse.ArgumentParser) -> None:
    add_verify_arguments(parser)
    add_answers(parser)


def _inputs(
    certificate: Certificate | PathLike,
    trust: TrustStore | PathLike,
    policy: PathLike | None,
    options: Mapping[str, object],
    folder: Path,
) -> dict[str, object]:
    """What a check reads, as files: of the call, or as the certificate object carries it."""
    given = dict(options)
    if isinstance(certificate, Certificate) and certificate.files is not None:
        carried = {name: getattr(certificate.files, name) for name in (*_CARRIED, "base", "patched")}
        given = {**carried, **given}
    for name in ("base", "patched"):
        if given.get(name) is None:
            text = f"{name}: the network's ONNX file is needed beside a certificate file"
            raise RefusalError(text, "E_USAGE")
    inputs = Inputs(folder)
    given = inputs.records(given)
    for name in ("base", "patched"):
        given[name] = inputs.network(cast("PathLike | bytes", given[name]), name)
    given["certificate"] = certificate.path if isinstance(certificate, Certificate) else certificate
    given["trust"] = trust.path if isinstance(trust, TrustStore) else trust
    given["policy"] = trust.policy if isinstance(trust, TrustStore) and policy is None else policy
    return given


def audit(
    endpoint: str,
    *,
    certificate: Certificate | PathLike,
    trust: TrustStore | PathLike,
    policy: PathLike | None = None,
    **options: Unpack[AuditOptions],
) -> Verdict:
    """Ask a deployed model whether it is the network of a certificate.

    Args:
        endpoint: ``http(s)://HOST[:PORT][/PREFIX]/v2/models/NAME[/versions/VERSION]``, Open Inference Protocol v2.
        certificate: a file, or what :func:`sign` gave back.
        trust: your trust store, a file or what :func:`trust` gave back.
        policy: your policy; by default the one of :func:`trust`.
        options: see :class:`~prune_verify.api.options.AuditOptions`.

    Returns:
        The verdict of the certificate and the endpoint; ``data["audit"]`` has what was asked and answered.

    Raises:
        RefusalError: could not run: as :func:`verify`, or the endpoint is not reached or speaks otherwise.
        TypeError: an option that there is not.

    """
    known_only("audit", options, keywords.AuditOptions.__annotations__)
    with refusals(), TemporaryDirectory(prefix="prune-verify-") as folder:
        from prune_verify.audit.endpoint_command import audit_command

        given = _inputs(certificate, trust, policy, options, Path(folder))
        with Progress(enabled=bool(given.pop("progress", False))) as progress:
            _, text, found = audit_command(parsed("audit", add_audit, [endpoint], given), progress)
    return Verdict.of(text, found)
