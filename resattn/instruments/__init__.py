"""Independent checks that share no code with the rules: other counters, and gradients."""
