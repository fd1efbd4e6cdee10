"""What the agent tells Prometheus, if ``[metrics]`` of the config asks for it."""
