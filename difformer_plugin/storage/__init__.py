"""How are files written so that nothing is lost? Atomic files, locks and journals."""
