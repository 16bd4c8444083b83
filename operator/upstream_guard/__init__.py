"""Upstream Guard: makes 502 windows on Kubernetes rare, short, predicted and explained."""

__version__ = "0.1.0"
