"""How are files written so that nothing is lost? Atomic files and journals."""
