"""The documentation site: pages of docs/, and pages made from results and code when MkDocs builds."""
