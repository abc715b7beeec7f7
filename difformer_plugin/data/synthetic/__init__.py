"""A small German-English corpus written by a grammar, for demonstrations and tests."""
