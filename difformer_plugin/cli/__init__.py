"""What does a person type? One command, `difformer`, with a file a subcommand."""
