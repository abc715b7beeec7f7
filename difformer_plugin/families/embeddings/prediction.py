"""What the network of a Gaussian diffusion predicts, and how z_0-hat follows from it."""

from dataclasses import dataclass
from typing import Any

import torch
from fairseq.dataclass import ChoiceEnum, FairseqDataclass

from difformer_plugin.diffusion.gaussian.predictions import PREDICTIONS, kl_weights
from difformer_plugin.diffusion.gaussian.process import GaussianProcess
from difformer_plugin.diffusion.positional_schedules import POSITIONAL_SCHEDULES
from difformer_plugin.errors import UserError
from difformer_plugin.networks.layout import Layout
from difformer_plugin.options import option

Z_0, EXPECTED_EMBEDDING = "z_0", "expected_embedding"
PREDICTION = ChoiceEnum([*PREDICTIONS, EXPECTED_EMBEDDING])


@dataclass
class PredictionConfig(FairseqDataclass):
    """The option that says what is predicted."""

    prediction: PREDICTION = option(  # type: ignore[valid-type]
        Z_0,
        "what the network predicts: z_0, epsilon (the noise), mean (of the posterior), or "
        "expected_embedding (logits of the types, whose mean embedding is z_0-hat)",
    )


def check_prediction(cfg: Any) -> None:
    """Raise a UserError if other options do not go with what is predicted.

    Args:
        cfg: a GaussianConfig.
    """
    if cfg.prediction in (Z_0, EXPECTED_EMBEDDING):
        return
    if cfg.normalize_input:
        raise UserError(
            f"--prediction {cfg.prediction} is relative to z_t itself: omit --normalize-input, or "
            "predict z_0"
        )
    if cfg.noise_schedule in POSITIONAL_SCHEDULES:
        raise UserError(
            f"--noise-schedule {cfg.noise_schedule} leaves so little of late tokens that z_0 "
            f"cannot be computed from --prediction {cfg.prediction}: predict z_0, or use another "
            "schedule"
        )


class Predicting:
    """The part of a model that turns the network's output into z_0-hat."""

    cfg: Any  # with the fields of PredictionConfig

    @property
    def process(self) -> GaussianProcess:
        """The forward process of training, at all of its T steps."""
        raise NotImplementedError

    def to_prediction(
        self,
        denoiser: Any,
        output: torch.Tensor,
        z_t: torch.Tensor,
        t: torch.Tensor,
        layout: Layout,
    ) -> torch.Tensor:
        """z_0-hat (N, D), from what the network predicts."""
        if self.rounds_output:
            return denoiser.expected(output)
        if self.predicts_z_0:
            return output
        steps = t.round().long().clamp(0, len(self.process) - 1).expand(len(layout.lengths))
        # In float32: where there is much noise, a is below what halves can hold.
        a, b = (x.float() for x in self.coefficients(steps, layout))
        z_0_hat = (output.float() - b * z_t.float()) / a
        limit = torch.finfo(output.dtype).max / 4  # self-conditioning reads it as such
        return z_0_hat.clamp(-limit, limit)

    def coefficients(
        self, steps: torch.Tensor, layout: Layout
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """a and b of tokens, float64 (N, 1), where a z_0 + b z_t is predicted.

        Args:
            steps: int64 (n,), the step of each candidate.
        """
        return PREDICTIONS[self.cfg.prediction](self.process, steps, layout)

    @property
    def predicts_z_0(self) -> bool:
        """Whether the network's output is z_0-hat, or turned into one without z_t."""
        return self.cfg.prediction in (Z_0, EXPECTED_EMBEDDING)

    @property
    def rounds_output(self) -> bool:
        """Whether probabilities of tokens are those of the output: z_0-hat is their mean."""
        return self.cfg.prediction == EXPECTED_EMBEDDING

    def squared_error_weights(
        self, weighted: bool, steps: torch.Tensor, layout: Layout
    ) -> torch.Tensor | None:
        """What turns squared errors of z_0-hat into those that count, (N, 1); None for 1.

        Args:
            weighted: whether they are weighted as in the variational bound (Ho et al., 2020, Eq.
                8 and 12), and not errors of what is predicted.
            steps: int64 (n,), the step of each candidate.
        """
        if weighted:
            return kl_weights(self.process, steps, layout)
        if self.predicts_z_0:
            return None
        return self.coefficients(steps, layout)[0].square()
