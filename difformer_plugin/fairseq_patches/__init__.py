"""What do we mend in fairseq? One file a fault, with the version that makes it obsolete."""
