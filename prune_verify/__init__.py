"""prune-verify: verified patch certificates for machine unlearning.

A *patch* is a small ReLU network added to a base network so that the patched network no longer
answers the forgotten label on stated regions, and provably keeps its answers elsewhere. The
package is two programs that meet in files on disk: an untrusted prover (``repair``, ``certify``)
and a small trusted checker (:mod:`prune_verify.checker`) that believes nothing the prover says.

Importing this package imports nothing heavy.
"""

__version__ = "0.1.0"
