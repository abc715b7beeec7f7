"""A teacher's distributions over the vocabulary as labels of the anchor loss."""

import os
from typing import Any

import torch
from fairseq import checkpoint_utils
from torch.nn import functional as F

from difformer_plugin.errors import UserError
from difformer_plugin.families.contract import is_diffusion_model
from difformer_plugin.families.embeddings.anchor import SmoothedNLL
from difformer_plugin.reranking.teacher import without_bos


class SoftLabels:
    """An autoregressive teacher that reads the source and the tokens before each token.

    Args:
        path: its checkpoint; its dictionaries must be the task's.
        task: the task of the model that is trained.
    Raises:
        UserError: the checkpoint is missing, unreadable, or not of an autoregressive model.
    """

    def __init__(self, path: str, task: Any):
        if not os.path.isfile(path):
            raise UserError(f"--soft-labels {path}: no such checkpoint")
        (teacher,), _ = checkpoint_utils.load_model_ensemble([path], task=task)
        if is_diffusion_model(teacher):
            raise UserError(
                f"--soft-labels {path} must be an autoregressive teacher, not a "
                f"{type(teacher).__name__}"
            )
        self.teacher = teacher.eval().requires_grad_(False)
        dictionary = task.target_dictionary
        self.bos, self.eos, self.pad = dictionary.bos(), dictionary.eos(), dictionary.pad()

    @torch.no_grad()
    def states(self, src_tokens: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """The teacher's last hidden state before each token, (B, L, C); zeros before BOS.

        Args:
            src_tokens: (B, S); target: (B, L), from BOS to EOS, padded on the right.
        """
        self.teacher.to(target.device)
        source = without_bos(src_tokens, self.bos, self.pad)
        previous = target[:, :-1].masked_fill(target[:, :-1].eq(self.eos), self.pad)
        previous[:, 0] = self.eos  # in the place of BOS, as fairseq trains
        memory = self.teacher.encoder(source, src_lengths=source.ne(self.pad).sum(1))
        states, _ = self.teacher.decoder(previous, encoder_out=memory, features_only=True)
        return F.pad(states, (0, 0, 1, 0))

    def probabilities(self, states: torch.Tensor) -> torch.Tensor:
        """The teacher's distributions (m, V) of hidden states (m, C)."""
        return self.teacher.decoder.output_layer(states).float().softmax(-1)


class SoftenedNLL:
    """The cross-entropy with a mixture of smoothed labels and the teacher's distribution.

    Args:
        epsilon: of the smoothed labels, in [0, 1).
        weight: of the teacher's distribution, in [0, 1].
        labels: the teacher.
    """

    def __init__(self, epsilon: float, weight: float, labels: SoftLabels):
        self.epsilon, self.weight, self.labels = epsilon, weight, labels

    def function(
        self, logits: torch.Tensor, targets: torch.Tensor, states: torch.Tensor
    ) -> torch.Tensor:
        """The costs of tokens as they are defined.

        Args:
            logits: (m, V); targets: int64 (m,).
            states: (m, C), the teacher's hidden states.
        Returns:
            float32 (m, 2) in nats: with these labels, and the negative log-likelihood.
        """
        smoothed, nll = SmoothedNLL(self.epsilon).function(logits, targets).unbind(-1)
        q, weight = self._teachers(states)
        soft = -(q * F.log_softmax(logits.float(), dim=-1)).sum(-1)
        return torch.stack([(1 - weight) * smoothed + weight * soft, nll], dim=-1)

    def __call__(
        self,
        logits: torch.Tensor,
        targets: torch.Tensor,
        states: torch.Tensor,
        with_gradient: bool,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The sums of `function`, and the gradient of the first: p less the labels."""
        log_probs = F.log_softmax(logits, dim=-1)
        true = log_probs.gather(1, targets[:, None])[:, 0]
        q, weight = self._teachers(states)
        smoothed = -(1 - self.epsilon) * true - self.epsilon * log_probs.mean(-1)
        soft = -(q * log_probs).sum(-1)
        sums = torch.stack([((1 - weight) * smoothed + weight * soft).sum(), -true.sum()])
        if not with_gradient:
            return sums, None
        hard = (1 - weight)[:, None]
        gradient = (
            log_probs.exp_()
            .sub_(q.mul_(weight[:, None]))
            .sub_(hard * (self.epsilon / logits.shape[1]))
        )
        return sums, gradient.scatter_add_(1, targets[:, None], hard * (self.epsilon - 1))

    def _teachers(self, states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The teacher's distributions (m, V), and their weights (m,): 0 at BOS."""
        known = states.any(-1)
        return self.labels.probabilities(states), self.weight * known
