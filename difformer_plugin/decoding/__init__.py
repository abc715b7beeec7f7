"""How is a sentence drawn? Candidates (length x noise), the reverse process, and the choice."""
