"""What was tried, and what is champion: kept beside the runs, shared by all of them."""
