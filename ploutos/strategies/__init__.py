"""Everything that chooses target weights."""
