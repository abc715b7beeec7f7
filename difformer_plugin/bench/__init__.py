"""How fast is it? Rows measured in turn in one run: decoding, training, and choosing by MBR."""
