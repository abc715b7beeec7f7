"""How does it compare with the authors' implementation? Its checkpoints and recorded numbers."""
