"""Which candidate? Minimum Bayes risk, a teacher, the model's own probability."""
