"""What is diffused? One folder a family: its configuration, model and objective."""
