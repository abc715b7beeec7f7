"""Discrete diffusion, registered with fairseq: tokens are corrupted, and predicted back."""

from typing import NamedTuple, Optional

import torch
from fairseq.models import register_model

from difformer_plugin.diffusion.categorical.draft import Draft
from difformer_plugin.diffusion.categorical.objectives import low_discrepancy, training_times
from difformer_plugin.diffusion.categorical.samplers import NUMBERS, Vocabulary, filled
from difformer_plugin.diffusion.insertion.process import closed_up, corrupt, log_missing
from difformer_plugin.diffusion.noise import (
    SentenceNoise,
    sentence_keys,
    uniform,
    uniform_noise,
)
from difformer_plugin.families.base import (
    SELF_COND_PROBABILITY,
    VALIDATION_SEED,
    DiffusionModel,
    process_generator,
    register_architectures,
)
from difformer_plugin.families.tokens.config import (
    ARCHITECTURES,
    DiscreteDiffusionConfig,
    check_config,
    steps,
)
from difformer_plugin.families.tokens.denoiser import DiscreteDenoiser
from difformer_plugin.families.tokens.process import Chain
from difformer_plugin.families.tokens.samplers import build_sampler, check_sampler
from difformer_plugin.networks.building import build_networks
from difformer_plugin.networks.config import with_defaults
from difformer_plugin.networks.layout import Layout


class Gaps(NamedTuple):
    """The gaps of closed-up targets, where tokens may be missing."""

    log_expected: torch.Tensor  # (G,), what the network expects
    missing: torch.Tensor  # int64 (G,), what is true
    t: torch.Tensor  # float64 (G,)


class DiscreteOutput(NamedTuple):
    """What the objective needs of one training step: its M tokens are those that are predicted."""

    predictions: torch.Tensor  # (M, D)
    x_0: torch.Tensor  # int64 (M,), types
    x_t: torch.Tensor  # int64 (M,), types or the mask
    s: torch.Tensor  # float64 (M,), the times
    t: torch.Tensor  # float64 (M,)
    words: torch.Tensor  # int64 (B,), of each target, without its frame
    length_logits: Optional[torch.Tensor]  # (B, 256)
    length_classes: Optional[torch.Tensor]  # (B,)
    gaps: Optional[Gaps]


@register_model("discrete_diffusion", dataclass=DiscreteDiffusionConfig)
class DiscreteDiffusion(DiffusionModel):
    """D3PM, MDLM, SEDD or the flexible-length form, with an encoder-decoder Transformer.

    BOS, EOS and padding are never corrupted, and never drawn; all others are, <unk> included, as
    the bound has to count it. The mask is the index after the dictionary's last, whose own indices
    stay as they are.
    """

    criterion = "discrete_diffusion_loss"
    time_unit = 1.0  # times lie between 0 and 1

    def __init__(self, cfg, encoder, denoiser, length_predictor, dictionaries):
        flexible = cfg.objective == "flexible"
        length_predictor = None if flexible else length_predictor
        super().__init__(cfg, encoder, denoiser, length_predictor, dictionaries)
        target = dictionaries[1]
        first = max(target.bos(), target.pad(), target.eos()) + 1
        self.vocabulary = Vocabulary(target.bos(), target.eos(), first, len(target))
        self.chain = Chain(cfg, target, first)

    @classmethod
    def build_model(cls, cfg, task):
        """Build a model for the task's dictionaries."""
        cfg = with_defaults(cfg, DiscreteDiffusionConfig)
        check_config(cfg)
        dictionaries = task.source_dictionary, task.target_dictionary
        networks = build_networks(cfg, *dictionaries, 1000.0, DiscreteDenoiser)
        return cls(cfg, *networks, dictionaries)

    def prepare_training(self, task):
        """Where the process finds what it needs to know of the data, if no checkpoint has it."""
        self.chain.task = task

    @property
    def process(self):
        """categorical.Process."""
        return self.chain.process

    def forward(self, src_tokens, target, part=(0, 1), **unused):
        """One step of training: corrupt the target at a random time and predict it back.

        In evaluation mode time and noise are functions of the source sentence and `part` alone.

        Args:
            src_tokens: (B, S); target: (B, L), padded on the right.
            part: in evaluation mode, (i, n): the i-th of n evenly spaced times.
        Returns:
            DiscreteOutput.
        """
        memory = self.encoder(src_tokens)
        u, noise, conditioned = self._draw(src_tokens, target.shape[1], part)
        times = training_times(u, steps(self.cfg))
        words = target >= self.vocabulary.first
        if self.cfg.objective == "flexible":
            return self._flexible(memory, target, words, times, noise)
        mask = target.ne(self.denoiser.pad)
        layout = self.layout(mask)
        if self.means.pack:
            target, noise, here = target[mask], noise[mask], words[mask]
        else:
            target, noise, here = (x.flatten(0, 1) for x in (target, noise, words))
        here = here.nonzero()[:, 0]
        s, t = (x[layout.rows[here]] for x in times)
        x_0 = target[here] - self.vocabulary.first
        x_t = self.process.corrupt(x_0, t, noise[here])
        z_t = self.denoiser.embed(target.index_copy(0, here, x_t + self.vocabulary.first))
        predicted = self.denoise_conditioned(z_t, times[1].float(), layout, memory, conditioned)
        return DiscreteOutput(
            predicted.index_select(0, here),
            *(x_0, x_t, s, t, words.sum(1)),
            self.length_predictor(memory),
            self.length_predictor.classes(mask.sum(1), memory),
            None,
        )

    def _flexible(self, memory, target, words, times, noise):
        """The same where tokens go missing, too."""
        t, counts = times[1], words.sum(1)
        rows = torch.arange(len(target), device=target.device).repeat_interleave(counts)
        states = corrupt(self.process.schedule, t[rows], noise[words][:, 0].double())
        left = closed_up(target[words], counts, states, self.vocabulary.mask)
        layout, tokens = self._framed(left)
        predicted = self.denoise_conditioned(
            self.denoiser.embed(tokens), t.float(), layout, memory, None
        )
        masks = (tokens == self.vocabulary.mask).nonzero()[:, 0]
        gaps = (tokens != self.vocabulary.eos).nonzero()[:, 0]
        x_0, of_masks = left.targets - self.vocabulary.first, t[layout.rows[masks]]
        of_gaps, schedule = t[layout.rows[gaps]], self.process.schedule
        outputs = self.denoiser.missing(predicted[gaps], predicted[gaps + 1])
        expected = log_missing(schedule, of_gaps, outputs)
        return DiscreteOutput(
            predicted.index_select(0, masks),
            *(x_0, torch.full_like(x_0, self.vocabulary.types), of_masks, of_masks, counts),
            *(None, None, Gaps(expected, left.missing, of_gaps)),
        )

    def _framed(self, left):
        """The Layout and tokens (N,) of closed-up targets with BOS and EOS around each."""
        lengths = left.lengths + 2
        layout = Layout(lengths.tolist(), list(range(len(lengths))), lengths.device)
        ends = lengths.cumsum(0)
        tokens = left.tokens.new_empty(layout.candidates.total)
        inner = torch.ones_like(tokens, dtype=torch.bool)
        inner[ends - 1] = inner[ends - lengths] = False
        tokens[inner] = left.tokens
        tokens[ends - 1], tokens[ends - lengths] = self.vocabulary.eos, self.vocabulary.bos
        return layout, tokens

    def _draw(self, src_tokens, length, part):
        """Uniform numbers for times (B,) and tokens (B, L, NUMBERS); who is conditioned (B,)."""
        count, device = len(src_tokens), src_tokens.device
        if self.training:
            options = {"device": device, "generator": process_generator(device)}
            u = low_discrepancy(torch.rand(1, **options), torch.randperm(count, **options))
            noise = torch.rand(count, length, NUMBERS, **options)
            return u, noise, torch.rand(count, **options) < SELF_COND_PROBABILITY
        i, parts = part
        keys = sentence_keys(src_tokens, self.encoder.pad, VALIDATION_SEED)
        u = uniform(keys, 2)
        noise = SentenceNoise(keys, torch.zeros_like(keys), uniform_noise)(i, (length, NUMBERS))
        return (u[:, 0] + i / parts) % 1, noise, u[:, 1] < SELF_COND_PROBABILITY

    def rounding(self, denoiser):
        """The table (n, D) that scores the types."""
        return denoiser.output_projection.weight[self.vocabulary.first :]

    def logits(self, predictions):
        """Scores of the types (M, n), of predictions (M, D)."""
        table = self.rounding(self.denoiser)
        return predictions.type_as(table) @ table.T

    def check_decoding(self, options):
        """As of any model; the process need not be known yet."""
        check_sampler(self.cfg, options)

    def decoding_process(self, options):
        """What decoding steps through: K steps, in the way that the options want."""
        return build_sampler(self, options)

    def noise_shape(self, length):
        """The shape of the noise of a target of this length."""
        return length, NUMBERS

    def blank(self, count, device):
        """A state x_t and a prediction of so many tokens, to be overwritten."""
        tokens = torch.zeros(count, dtype=torch.long, device=device)
        prediction = torch.zeros(count, self.cfg.latent_dim, device=device)
        return Draft(tokens, prediction[:, 0].clone()), prediction

    def predict(self, z, timestep, layout, context, previous):
        """Predictions (N, D) in float32, whatever the precision of the context.

        Args:
            z: Draft, of the tokens of the Layout.
            timestep: in [0, 1], the same for all; a number, or a tensor (1,).
            previous: the last prediction, or None at the first step.
        """
        denoiser = self.denoiser_in(context.dtype)
        x_t = denoiser.embed(z.tokens)
        previous = torch.zeros_like(x_t) if previous is None else previous.to(x_t.dtype)
        t = timestep
        if not torch.is_tensor(t):
            t = torch.full((1,), timestep, device=x_t.device, dtype=torch.float32)
        return denoiser.denoise(x_t, t, layout, context, previous).float()

    def round(self, z):
        """The tokens (N,) of a Draft and their log-probabilities (N,) when they were drawn."""
        return z.tokens, z.log_probs

    def guess(self, z, prediction):
        """What a prediction says that the target is: tokens (N,) and log-probabilities (N,)."""
        return self.round(self._filled(z, prediction, self.logits))

    def likeliest(self, z, prediction, context):
        """The tokens (N,) of `guess` alone, in the precision of the context."""
        table = self.rounding(self.denoiser_in(context.dtype))
        return self._filled(z, prediction, lambda own: own.type_as(table) @ table.T).tokens

    def _filled(self, z, prediction, logits):
        """A Draft with the likeliest types; ratios of probabilities say only where to go next."""
        absorbing = self.cfg.process == "absorbing"
        if self.cfg.objective == "sedd" and not absorbing:
            return z
        return filled(z, prediction, self.vocabulary, logits, absorbing)


register_architectures("discrete_diffusion", ARCHITECTURES)
