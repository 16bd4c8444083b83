"""A real cluster on this machine, with gateways, sample upstreams and load."""
