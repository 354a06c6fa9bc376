"""The operators that one forward pass executes: their records, and the capture that makes them."""
