"""How fast is it? Rows measured in turn within one run: decoding, training and reranking."""
