"""Deployments, with Modal's own client and container runtime."""
