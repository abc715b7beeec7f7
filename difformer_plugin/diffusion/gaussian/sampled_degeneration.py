"""The degeneration score by sampling (Algorithm 2): of any embedding table, and of normal ones."""

import math

import torch

from difformer_plugin.diffusion.gaussian.degeneration import pull

BLOCK = 2**24  # entries of the matrix of scores that is held at a time
NORMAL_TABLES = 16


def degenerated_model(embeddings, z_t, classifier="definition1"):
    """The token that the degenerated model takes z_t for (Definition 1).

    Args:
        embeddings: (V, D); z_t: (N, D).
    Returns:
        int64 (N,).
    """
    c = pull(classifier, embeddings.shape[1])
    half_norms = embeddings.square().sum(1) / 2
    blocks = z_t.split(max(1, BLOCK // len(embeddings)))
    return torch.cat(
        [torch.addmm(half_norms, z, embeddings.T, beta=-1, alpha=c).argmax(1) for z in blocks]
    )


def seeded(device, seed):
    """A generator; from one seed, two factors are scored on the same draws."""
    return torch.Generator(device).manual_seed(seed)


def table_scores(
    embeddings, alpha_bar, beta_bar, samples, generator, classifier="definition1", progress=iter
):
    """DGS_t of an embedding table, each from `samples` draws of a token and its noise.

    Args:
        embeddings: (V, D), on the device that is to compute.
        alpha_bar, beta_bar: (T,) arrays.
        samples: draws for each time step.
        generator: on the table's device.
        progress: wraps the iteration over the time steps, as tqdm does.
    Returns:
        float64 (T,) on the CPU.
    """
    embeddings = embeddings.detach().float()
    device, (types, dim) = embeddings.device, embeddings.shape
    scores = []
    for a, b in progress(list(zip(alpha_bar, beta_bar))):
        right = 0
        for start in range(0, samples, 4096):
            count = min(4096, samples - start)
            tokens = torch.randint(types, (count,), generator=generator, device=device)
            noise = torch.randn(count, dim, generator=generator, device=device)
            z_t = math.sqrt(a) * embeddings[tokens] + math.sqrt(b) * noise
            right += (degenerated_model(embeddings, z_t, classifier) == tokens).sum()
        scores.append(right / samples)
    return torch.stack(scores).double().cpu()


def standard_error(scores, samples):
    """Of the mean of DGS_t (T,), each a share of `samples` independent draws."""
    # a share of exactly 0 or 1 says little about its variance: one draw more of each kind
    shares = (scores * samples + 1) / (samples + 2)
    return float((shares * (1 - shares) / samples).sum().sqrt() / len(scores))


def error_bound(draws, confidence=0.99):
    """What the error of a mean of so many draws in [0, 1] stays below (Hoeffding's inequality)."""
    return math.sqrt(math.log(2 / (1 - confidence)) / (2 * draws))


def normal_scores(
    alpha_bar,
    beta_bar,
    vocab_size,
    latent_dim,
    sigma=1.0,
    classifier="definition1",
    samples=1000,
    tables=NORMAL_TABLES,
    seed=0,
    progress=iter,
):
    """DGS_t by Algorithm 2 for tables drawn from N(0, sigma^2 I).

    Args:
        samples: draws for each time step, shared out among `tables` tables.
        progress: wraps the iteration over the tables, as tqdm does.
    Returns:
        DGS_t, float64 (T,), and the standard error of its mean, from how the tables differ.
    """
    generator, share = seeded("cpu", seed), math.ceil(samples / tables)
    drawn = []
    for _ in progress(range(tables)):
        embeddings = sigma * torch.randn(vocab_size, latent_dim, generator=generator)
        drawn.append(table_scores(embeddings, alpha_bar, beta_bar, share, generator, classifier))
    drawn = torch.stack(drawn)
    return drawn.mean(0), float(drawn.mean(1).std() / math.sqrt(tables))
