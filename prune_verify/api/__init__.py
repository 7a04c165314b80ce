"""The Python interface: repair, certify, sign, verify, measure and audit, as the command line does them.

Each call runs the verb of the same name with the same files, so that what it leaves in a folder is what the
command leaves, and what it refuses (:class:`RefusalError`, with ``code``) is what the command refuses. The keyword
arguments are the options of ``prune-verify VERB --help``, dashes as underscores.

A network that answers with the greater of two numbers, one record to forget, three that stay:

>>> import numpy as np
>>> import torch
>>> import prune_verify.api as pv
>>> network = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU())
>>> with torch.no_grad():
...     _ = network[0].weight.copy_(torch.eye(2))
...     _ = network[0].bias.zero_()
>>> x = np.random.default_rng(0).random((200, 2), dtype=np.float32)
>>> y = x.argmax(axis=1)
>>> far = np.abs(x - x[0]).max(axis=1) > 0.2
>>> patched = pv.repair(network, forget=(x[:1], y[:1]), retain=(x[far], y[far]), out="out")
>>> patched.gates, patched.conflicts
(1, ())
>>> with torch.no_grad():
...     before, after = (int(of(torch.from_numpy(x[:1])).argmax()) for of in (network, patched.module()))
>>> int(y[0]), before, after
(0, 0, 1)

The owner proves and signs; the auditor, with a trust store and a policy of his own, checks:

>>> statement = pv.certify(patched)
>>> statement.complete
True
>>> key = pv.keygen("owner")
>>> certificate = pv.sign(statement, key=key)
>>> store = pv.trust("trust.json", {"owner.pub": "Owner Ltd"})
>>> verdict = pv.verify(certificate, trust=store)
>>> verdict.word, {claim.kind for claim in verdict.claims if claim.proved == claim.total} >= {"forget", "retain_exact"}
('VERIFIED', True)

Importing this package imports nothing heavy; :func:`verify` needs the base install alone.
"""

from __future__ import annotations

from prune_verify.api.auditing import audit, keygen, sign, trust, verify
from prune_verify.api.errors import RefusalError
from prune_verify.api.measuring import Measurement, measure
from prune_verify.api.owning import certify, repair
from prune_verify.api.results import Certificate, Files, Key, Patched, Statement, TrustStore, Verdict

__all__ = [
    "Certificate",
    "Files",
    "Key",
    "Measurement",
    "Patched",
    "RefusalError",
    "Statement",
    "TrustStore",
    "Verdict",
    "audit",
    "certify",
    "keygen",
    "measure",
    "repair",
    "sign",
    "trust",
    "verify",
]
