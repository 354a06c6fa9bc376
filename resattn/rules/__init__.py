"""The operator table: one row holds all properties of an operator."""
