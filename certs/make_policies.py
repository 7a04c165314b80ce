"""Write the policies that ``trust init --policy-template`` begins with to ``certs/policies``: ``make examples``."""

from __future__ import annotations

from pathlib import Path

from prune_verify.audit.policy_templates import TEMPLATES, policy_text

FOLDER = Path(__file__).resolve().parent / "policies"


def main() -> None:
    """Write each of them."""
    FOLDER.mkdir(exist_ok=True)
    for name in TEMPLATES:
        (FOLDER / f"{name}.toml").write_text(policy_text(name))


if __name__ == "__main__":
    main()
