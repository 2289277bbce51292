"""The trading environment: one ledger, one clock, and the batched and single environments that stand on them."""
