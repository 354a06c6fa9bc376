"""Networks beside each other: matching, layouts, the census, differences of audits."""
