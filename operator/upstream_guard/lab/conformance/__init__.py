"""What gateways answer when an upstream fails, measured on this machine without a cluster.

A gateway with its own defaults runs on the loopback address in front of upstreams that fail on
command; what a client gets, what the gateway logs and what the upstream sees is written down.
"""
