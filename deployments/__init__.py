"""What a Prefect server is told: deployments and their schedules, one server for one host, runs that are over although it says Running."""
