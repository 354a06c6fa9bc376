"""The study's ledger: what was printed about Residual Attention Networks, and what its training runs say of it."""
