"""What one forward pass executed: the records, and the capture that makes them."""
