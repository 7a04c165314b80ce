"""What ``certs/make_vectors.py`` is made of: an honest owner, a forger, and the vectors by group."""
