"""The paper's numbers on noise rescaling (F and DGS), for comparison."""

DGS_MAX = (0.05, 0.10, 0.15, 0.20, 0.30, 0.50)
VOCAB_SIZES = (10_000, 20_000, 40_000)
LATENT_DIM = 128

# Table 2: DGS at F = 1.
TABLE_2 = {"linear": 0.47, "cosine": 0.77, "sqrt": 0.77}

# Table 19: F by schedule, vocabulary size and DGS_MAX; d = 128, sigma_e = 1, in steps of 0.5.
TABLE_19 = {
    ("linear", 10_000): (21.0, 9.5, 6.0, 4.0, 2.5, None),
    ("linear", 20_000): (20.0, 9.0, 5.5, 4.0, 2.5, None),
    ("linear", 40_000): (19.0, 9.0, 5.5, 4.0, 2.5, None),
    ("cosine", 10_000): (41.0, 19.0, 12.5, 9.0, 6.0, 3.0),
    ("cosine", 20_000): (38.5, 18.5, 12.0, 9.0, 5.5, 2.5),
    ("cosine", 40_000): (37.0, 18.0, 11.5, 8.5, 5.5, 2.5),
    ("sqrt", 10_000): (7.0, 5.0, 4.0, 3.5, 2.5, 2.0),
    ("sqrt", 20_000): (6.5, 4.5, 4.0, 3.5, 2.5, 2.0),
    ("sqrt", 40_000): (6.0, 4.5, 3.5, 3.0, 2.5, 1.5),
}

# Table 14: F of `sqrt` by dimension, at DGS_MAX = 0.15 on IWSLT14 (about 10,000 types).
TABLE_14 = {64: 2.5, 128: 4.0, 256: 6.0, 512: 8.5}

# Table 17: F of `sqrt` in the variance-preserving form by DGS_MAX, on IWSLT14.
TABLE_17 = {0.05: 9.5, 0.15: 4.5, 0.50: 2.0}
