"""What does fairseq see? The task that ties data, model, criterion and generator together."""
