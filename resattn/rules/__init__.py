"""The operator table: everything that is known of an operator stands in its row."""
