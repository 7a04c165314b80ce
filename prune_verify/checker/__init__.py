"""The trusted checker: everything that ``python -m prune_verify.checker`` imports.

It needs the base install only (numpy, onnx, cryptography) and never imports the prover.
README.md beside this file says in which order to read it.
"""
