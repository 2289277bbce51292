"""Deployments: `prefect.yaml` and nothing else."""
