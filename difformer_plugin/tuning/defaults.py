"""Default values of `difformer factor`. Importing them imports nothing else: `--help` is fast."""

MAX_DGS = 0.15  # threshold of the degeneration score
LATENT_DIM = 128
DIFFUSION_STEPS = 2000
SAMPLES = 1000  # draws for each time step
SEED = 1
SEARCH_STEP = 0.5
TARGET_LENGTH = 20  # `diffusion.positional_schedules.TYPICAL_LENGTH`
