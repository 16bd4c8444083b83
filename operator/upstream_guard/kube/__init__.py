"""The Kubernetes API: a raw client, watches that keep a state, gates, events, the Lease."""
