"""The ledger of the study: what was printed about Residual Attention Networks, with verdicts from its training runs."""
