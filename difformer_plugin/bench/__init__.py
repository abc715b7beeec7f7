"""How fast are decoding, training and reranking? Rows are measured in turn within one run."""
