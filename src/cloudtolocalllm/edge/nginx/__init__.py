"""Renders nginx's configuration from the embedded edge's settings: the same contract, for a larger set-up."""
