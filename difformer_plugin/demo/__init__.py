"""What does a first run look like? Stages, commands and report of `difformer demo`."""
