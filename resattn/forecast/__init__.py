"""What training takes, and how the cost grows with the input, without running either."""
