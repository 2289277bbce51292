"""Out-of-sample evaluation: every strategy through one ledger, metrics with intervals, and a page for people."""
