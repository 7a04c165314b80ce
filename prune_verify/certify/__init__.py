"""The prover: finds proofs that the checker can follow, and issues certificates."""
