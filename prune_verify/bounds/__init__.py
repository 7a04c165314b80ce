"""Bounds in floating point for the prover: the one wrapper of auto_LiRPA, and networks as PyTorch modules.

Nothing here is trusted: a bound found here is a hint whose proof the checker redoes.
"""
