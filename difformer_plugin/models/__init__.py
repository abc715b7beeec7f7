"""Paths of earlier versions, and the models that fairseq imports through `--user-dir`."""
