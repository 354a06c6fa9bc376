"""What trained networks do."""
