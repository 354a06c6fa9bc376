"""What training takes, and how cost grows with the input, without running either."""
