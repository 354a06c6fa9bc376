"""The study of Residual Attention Networks: its ledger, tables, statistics, figures, report and explorer."""
