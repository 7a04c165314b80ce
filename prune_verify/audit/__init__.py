"""What an auditor holds in hand: keys and the trust store, certificates looked at, verdicts, and the report."""
