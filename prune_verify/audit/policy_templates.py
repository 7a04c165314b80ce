"""Policies to begin with: the default one, a regulator's, and one for audits inside a company.

Each is the default text with other values, so that every demand stands in it with what it means. The texts are kept in
``certs/policies/`` as well, where a test compares them with these.

Source: FORMATS section 1 (``policy.toml``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from prune_verify.checker.errors import MalformedInputError
from prune_verify.checker.policy import default_policy_text

__all__ = ["TEMPLATES", "policy_text"]


@dataclass(frozen=True)
class _Template:
    """What differs from the default policy.

    Args:
        heading: comment lines at the top, without their marks.
        values: by name of the knob.

    """

    heading: tuple[str, ...]
    values: Mapping[str, str]


TEMPLATES: Mapping[str, _Template] = {
    "default": _Template((), {}),
    "regulator": _Template(
        (
            "A regulator's policy: somebody else's network, seen once, and the certificate stands for an inspection.",
            "An accredited auditor has countersigned, before training the training set; keys are bound to networks,",
            "the nonce is the regulator's own, no request may have vanished since the last certificate, and nothing is",
            "taken on anybody's word.",
        ),
        {
            "min_auditor_signatures": "1",
            "require_bound_keys": "true",
            "min_retain_records": "300",
            "max_already_wrong_share": "0.05",
            "require_commitment": "true",
            "require_countersignature": "true",
            "max_age_days": "90",
            "require_challenge": "true",
            "require_superseded": "true",
        },
    ),
    "internal-audit": _Template(
        (
            "A policy for audits inside a company: the team's own network, looked at after every release. Smaller",
            "balls, a few conflicts and unproved retained records, questions left to z3, and withdrawals are borne;",
            "all of them are named in the verdict.",
        ),
        {
            "min_forget_radius": "0.05",
            "min_retained_radius": "0.025",
            "required_for_records": '["forget", "retain_exact"]',
            "permitted_assumptions": '["z3_unsat:*"]',
            "min_proved_share": "0.99",
            "max_conflicts": "5",
            "max_slab_share": "0.02",
            "max_age_days": "30",
            "max_withdrawn": "10",
            "max_seconds": "3600",
        },
    ),
}


def policy_text(template: str = "default") -> str:
    """The annotated text of a policy, as TOML.

    Args:
        template: its name in :data:`TEMPLATES`.

    Raises:
        MalformedInputError: no such template, or one that names a knob that there is not.

    """
    found = TEMPLATES.get(template)
    if found is None:
        expected = f"one of {', '.join(TEMPLATES)}"
        raise MalformedInputError("--policy-template", "name of a policy", expected, repr(template)[:80])
    text = default_policy_text()
    for name, value in found.values.items():
        replaced = rf"\g<1>{value}"  # no value has a backslash
        text, count = re.subn(rf"^({name} = )(\[.*?\]|\S+)", replaced, text, flags=re.MULTILINE)
        if count != 1:
            raise MalformedInputError(f"policy {template}", "knob of the default policy", name, f"{count} of them")
    heading = "".join(f"# {line}\n" for line in found.heading)
    return heading + ("#\n" if heading else "") + text
