"""Where text comes from: corpora, clean pairs, subwords, data-bins."""
