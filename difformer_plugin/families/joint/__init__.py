"""Source and target in one sequence, read by one Transformer: DiffuSeq and Diffusion-LM."""
