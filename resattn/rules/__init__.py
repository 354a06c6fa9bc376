"""The operator table: one row holds everything that is known of an operator."""
