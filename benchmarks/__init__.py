"""Speed and memory of the audit and of the training loop, beside other tools."""
