"""How is a sentence drawn? Options, candidates, the reverse loop, the engine and its oracle."""
