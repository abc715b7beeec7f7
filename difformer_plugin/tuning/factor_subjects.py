"""What `difformer factor` scores: normal embeddings, exactly or sampled, or a trained table."""

from functools import cache

from difformer_plugin.cli import register_quietly
from difformer_plugin.cli.factor import DIFFUSION_STEPS, LATENT_DIM, SAMPLES
from difformer_plugin.errors import UserError

DEFAULT_SEED = 1
LARGEST_TABLE = 2**31  # entries


def from_arguments(args):
    """The subject that the arguments of `difformer factor` name."""
    samples = args.samples or SAMPLES
    seed = DEFAULT_SEED if args.seed is None else args.seed
    if args.from_checkpoint:
        return Trained(args.from_checkpoint, args.classifier, samples, seed)
    vocab_size = args.vocab_size
    if args.from_data:
        from difformer_plugin.data.data_bin import target_vocab_size

        vocab_size = target_vocab_size(args.from_data, args.target_lang)
    latent_dim = LATENT_DIM if args.latent_dim is None else args.latent_dim
    sigma = 1.0 if args.sigma is None else args.sigma
    normal = Normal(vocab_size, latent_dim, sigma, args.classifier)
    return Sampled(normal, samples, seed) if args.method == "monte-carlo" else normal


class Normal:
    """V embeddings from N(0, sigma^2 I), exactly."""

    defaults = {"noise_schedule": "sqrt", "diffusion_steps": DIFFUSION_STEPS, "vp_rf": False}

    def __init__(self, vocab_size, latent_dim, sigma=1.0, classifier="definition1"):
        self.setting = (vocab_size, latent_dim, sigma, classifier)

    def default(self, given, name):
        """An option's value, or where it is not given what the subject says."""
        return self.defaults[name] if given is None else given

    def scores(self, series, factor):
        """DGS_t at the time steps of a NoiseSeries, (T,)."""
        from difformer_plugin.diffusion.gaussian.degeneration import degeneration_scores

        return degeneration_scores(*series.coefficients(factor), *self.setting)

    def score(self, series, factor):
        """Their mean."""
        return float(self.scores(series, factor).mean())

    def describe(self, series, factor):
        """What to say of the subject and its score, for the JSON object."""
        vocab_size, latent_dim, sigma, _ = self.setting
        return {
            "vocab_size": vocab_size,
            "latent_dim": latent_dim,
            "sigma": sigma,
            "method": "exact",
        }


class Sampled(Normal):
    """The same by Algorithm 2."""

    def __init__(self, normal, samples, seed):
        self.setting, self.samples, self.seed = normal.setting, samples, seed
        vocab_size, latent_dim, *_ = self.setting
        if vocab_size * latent_dim > LARGEST_TABLE:
            raise UserError(
                f"--method monte-carlo: a table of {vocab_size} x {latent_dim} is too large to be "
                "drawn; use --method exact"
            )
        self._sample = cache(self._sample)

    def _sample(self, series, factor):
        from difformer_plugin.diffusion.gaussian.sampled_degeneration import normal_scores

        coefficients = series.coefficients(factor)
        return normal_scores(
            *coefficients, *self.setting, self.samples, seed=self.seed, progress=progress(factor)
        )

    def scores(self, series, factor):
        """DGS_t at the time steps of a NoiseSeries, (T,)."""
        return self._sample(series, factor)[0]

    def describe(self, series, factor):
        """What to say of the subject and its score, for the JSON object."""
        return {
            **super().describe(series, factor),
            "method": "monte-carlo",
            "samples": self.samples,
            "standard_error": self._sample(series, factor)[1],
        }


class Trained(Normal):
    """The embedding table of a checkpoint, sampled; on a GPU if there is one."""

    def __init__(self, path, classifier, samples, seed):
        import torch

        register_quietly()
        from difformer_plugin.checkpoints.stored import load_without_data

        model = load_without_data(path)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        with torch.no_grad():
            self.table = model.denoiser.table().float().to(device)
        if not self.table.isfinite().all():
            raise UserError(f"{path}: the embeddings are not all finite; use another checkpoint")
        self.defaults, self.rescaling = model.cfg, model.rescaling
        self.classifier, self.samples, self.seed = classifier, samples, seed
        self.scores = cache(self.scores)

    def scores(self, series, factor):
        """DGS_t at the time steps of a NoiseSeries, (T,)."""
        from difformer_plugin.diffusion.gaussian.sampled_degeneration import seeded, table_scores

        generator = seeded(self.table.device, self.seed)
        return table_scores(
            self.table,
            *series.coefficients(factor),
            self.samples,
            generator,
            self.classifier,
            progress(factor),
        )

    def describe(self, series, factor):
        """What to say of the subject and its score, for the JSON object."""
        from difformer_plugin.diffusion.gaussian.rescaling import dgs
        from difformer_plugin.diffusion.gaussian.sampled_degeneration import (
            error_bound,
            standard_error,
        )

        (types, dim), sigma = self.table.shape, float(self.table.square().mean().sqrt())
        scores = self.scores(series, factor)
        return {
            "vocab_size": types,
            "latent_dim": dim,
            "sigma": sigma,
            "method": "monte-carlo",
            "samples": self.samples,
            "standard_error": standard_error(scores, self.samples),
            "error_bound": error_bound(self.samples * len(scores)),
            "factor_in_training": self.rescaling.factor,
            "dgs_in_training": self.score(self.rescaling.series, self.rescaling.factor),
            "dgs_if_normal": dgs(series, factor, types, dim, sigma, self.classifier),
            "dgs_if_standard": dgs(series, factor, types, dim, 1.0, self.classifier),
        }


def progress(factor):
    """A wrapper of an iteration that shows it on a terminal."""
    from tqdm import tqdm

    def wrap(steps):
        return tqdm(steps, f"DGS at F = {factor:.4g}", leave=False, disable=None)

    return wrap
