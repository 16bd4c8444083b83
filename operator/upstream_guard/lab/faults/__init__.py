"""The fault matrix: real faults behind real gateways, and what the operator says was their cause."""
