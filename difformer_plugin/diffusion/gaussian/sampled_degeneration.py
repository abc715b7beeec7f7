"""The degeneration score by sampling (Algorithm 2), of any embedding table and of normal ones."""

import math
from collections.abc import Callable, Iterable

import numpy as np
import torch

from difformer_plugin.diffusion.gaussian.degeneration import query_scale

MAX_ENTRIES = 2**24  # of the matrix of scores that is held at a time
MAX_DRAWS = 4096  # draws that are made at a time
NORMAL_TABLES = 16


def degenerated_model(
    embeddings: torch.Tensor, z_t: torch.Tensor, classifier: str = "definition1"
) -> torch.Tensor:
    """The degenerated model's prediction for z_t (Definition 1).

    Args:
        embeddings: (V, D); z_t: (N, D).
    Returns:
        int64 (N,).
    """
    c = query_scale(classifier, embeddings.shape[1])
    half_norms = embeddings.square().sum(1) / 2
    blocks = z_t.split(max(1, MAX_ENTRIES // len(embeddings)))
    return torch.cat(
        [torch.addmm(half_norms, z, embeddings.T, beta=-1, alpha=c).argmax(1) for z in blocks]
    )


def seeded(device: torch.device | str, seed: int) -> torch.Generator:
    """A random generator; two factors scored with the same seed see the same draws."""
    return torch.Generator(device).manual_seed(seed)


def table_scores(
    embeddings: torch.Tensor,
    alpha_bar: np.ndarray,
    beta_bar: np.ndarray,
    samples: int,
    generator: torch.Generator,
    classifier: str = "definition1",
    progress: Callable[[Iterable], Iterable] = iter,
) -> torch.Tensor:
    """DGS_t of an embedding table: the accuracy on `samples` draws of a token and its noise.

    Args:
        embeddings: (V, D), on the device that computes.
        alpha_bar, beta_bar: (T,).
        samples: draws for each time step.
        generator: on the table's device.
        classifier: see `degeneration_scores`.
        progress: wraps the iteration over the time steps, as tqdm does.
    Returns:
        float64 (T,) on the CPU.
    """
    embeddings = embeddings.detach().float()
    device, (types, dim) = embeddings.device, embeddings.shape
    scores = []
    for a, b in progress(list(zip(alpha_bar, beta_bar))):
        right = 0
        for start in range(0, samples, MAX_DRAWS):
            count = min(MAX_DRAWS, samples - start)
            tokens = torch.randint(types, (count,), generator=generator, device=device)
            noise = torch.randn(count, dim, generator=generator, device=device)
            z_t = math.sqrt(a) * embeddings[tokens] + math.sqrt(b) * noise
            right += (degenerated_model(embeddings, z_t, classifier) == tokens).sum()
        scores.append(right / samples)
    return torch.stack(scores).double().cpu()


def standard_error(scores: torch.Tensor, samples: int) -> float:
    """The standard error of the mean of DGS_t (T,), each the share of `samples` draws."""
    # one more draw of each outcome, since a share of 0 or 1 would have variance 0
    shares = (scores * samples + 1) / (samples + 2)
    return float((shares * (1 - shares) / samples).sum().sqrt() / len(scores))


def error_bound(draws: int, confidence: float = 0.99) -> float:
    """A bound on the error of the mean of `draws` draws in [0, 1], by Hoeffding's inequality."""
    return math.sqrt(math.log(2 / (1 - confidence)) / (2 * draws))


def normal_scores(
    alpha_bar: np.ndarray,
    beta_bar: np.ndarray,
    vocab_size: int,
    latent_dim: int,
    sigma: float = 1.0,
    classifier: str = "definition1",
    samples: int = 1000,
    tables: int = NORMAL_TABLES,
    seed: int = 0,
    progress: Callable[[Iterable], Iterable] = iter,
) -> tuple[torch.Tensor, float]:
    """DGS_t of tables drawn from N(0, sigma^2 I), by Algorithm 2.

    Args:
        alpha_bar, beta_bar, vocab_size, latent_dim, sigma, classifier: as of
            `degeneration_scores`.
        samples: draws for each time step, divided among the tables.
        tables: the number of tables.
        seed: of all draws.
        progress: wraps the iteration over the tables, as tqdm does.
    Returns:
        DGS_t, float64 (T,), and the standard error of its mean, estimated between tables.
    """
    generator, share = seeded("cpu", seed), math.ceil(samples / tables)
    drawn = []
    for _ in progress(range(tables)):
        embeddings = sigma * torch.randn(vocab_size, latent_dim, generator=generator)
        drawn.append(table_scores(embeddings, alpha_bar, beta_bar, share, generator, classifier))
    drawn = torch.stack(drawn)
    return drawn.mean(0), float(drawn.mean(1).std() / math.sqrt(tables))
