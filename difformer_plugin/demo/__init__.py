"""What does a first run look like? The stages and the report of `difformer demo`."""
