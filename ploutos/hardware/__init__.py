"""The machine: its cores, its memory, and how many threads each process may start."""
