"""The iterative generator that fairseq calls: candidates, reverse process, rounding, reranking."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from fairseq.data import Dictionary

from difformer_plugin.decoding import blocks, engine, oracle
from difformer_plugin.decoding.candidates import FRAME, Drawn, forced_lengths, length_beam
from difformer_plugin.decoding.history import HistoryFile
from difformer_plugin.decoding.options import check_options
from difformer_plugin.decoding.sampling import check_decoding
from difformer_plugin.decoding.speedups import ENGINE, PLAIN, Speedups
from difformer_plugin.diffusion.noise import sentence_keys
from difformer_plugin.errors import UserError
from difformer_plugin.families.contract import Family, is_diffusion_model
from difformer_plugin.networks.layers import Memory
from difformer_plugin.reranking.options import build_reranker
from difformer_plugin.reranking.own import OwnProbability
from difformer_plugin.reranking.reranker import Batch, Candidate, Scores


class DiffusionGenerator:
    """2D parallel decoding (Sec. 3.3) with a diffusion model of any family.

    Args:
        dictionary: of the target.
        options: DecodingOptions.
        seed: of the noise.
        retain_history: keep the tokens of every step and their log-probabilities.
        speedups: those that are on; with `PLAIN` the oracle decodes.
    """

    def __init__(
        self,
        dictionary: Dictionary,
        options: Any,
        seed: int,
        retain_history: bool = False,
        speedups: Speedups = ENGINE,
    ):
        check_options(options)
        self.speedups = speedups
        self.dictionary, self.options, self.seed = dictionary, options, seed
        self.retain_history = retain_history
        if options.history_file and not retain_history:
            raise UserError("--history-file needs --retain-iter-history")
        self.history_file = options.history_file and HistoryFile(options.history_file, dictionary)
        self.eos = dictionary.eos()  # fairseq leaves this symbol out of what it prints
        self.reranker = build_reranker(options, dictionary)

    def check_models(self, models: Sequence[Any]) -> None:
        """Check the models of --path: one, and a teacher where the reranker needs it.

        Raises:
            UserError: they are not of these kinds, or cannot be decoded with these options.
        """
        if not is_diffusion_model(models[0]):
            raise UserError(
                f"the first model of --path is a {type(models[0]).__name__}, not a diffusion "
                "model: put the diffusion model first and a teacher second"
            )
        self.reranker.check(models)
        if len(models) > 1 + self.reranker.needs_teacher:
            raise UserError(
                f"--path names {len(models)} models: give one, or a second one as the teacher of "
                "--ppl-mbr or --rerank (ensembles are not supported)"
            )
        check_decoding(models[0], self.options)
        longest = models[0].max_positions()[1]
        if self.options.force_length is not None and self.options.force_length + FRAME > longest:
            raise UserError(
                f"--force-length must be at most {longest - FRAME}, which with BOS and EOS fills "
                f"the model's {longest} target positions, not {self.options.force_length}"
            )

    @torch.no_grad()
    def generate(
        self,
        models: Sequence[Any],
        sample: dict[str, Any],
        prefix_tokens: Any = None,
        **unused: Any,
    ) -> list[list[dict[str, Any]]]:
        """Translate a batch.

        Args:
            models: the diffusion model and, if the reranker needs it, a teacher.
            sample: fairseq's; its sources carry BOS and EOS.
        Returns:
            for each sentence its candidates, the best first, as the dictionaries that fairseq
            expects of a hypothesis.
        """
        if prefix_tokens is not None:
            raise UserError("--prefix-size: diffusion decoding has no forced prefixes")
        src_tokens = sample["net_input"]["src_tokens"]
        memory, sentences = self.draw(models, src_tokens)
        hypotheses = self._choose(models, src_tokens, memory, sentences)
        if self.history_file:
            self.history_file.write(sample, hypotheses)
        return hypotheses

    @torch.no_grad()
    def draw(
        self, models: Sequence[Any], src_tokens: torch.Tensor
    ) -> tuple[Memory, list[list[Drawn]]]:
        """Draw the candidates of a batch, without choosing among them.

        Args:
            models: as for `generate`.
            src_tokens: int64 (B, S), with BOS and EOS.
        Returns:
            the sources' Memory, and each sentence's candidates in the order drawn: length by
            length, noise by noise.
        """
        model, options = models[0], self.options
        memory = model.encoder(src_tokens)
        lengths = self._lengths(model, memory)
        empty = memory.lengths() <= FRAME
        lengths[empty] = FRAME

        lengths = lengths.repeat_interleave(options.noise_beam_size, dim=1)
        keys = sentence_keys(src_tokens, self.dictionary.pad(), self.seed)
        if self.speedups == PLAIN:
            decode = oracle.decode
        else:
            race_scores = partial(self._race_scores, models, src_tokens, memory)
            decode = partial(engine.decode, speedups=self.speedups, race_scores=race_scores)
        if options.decoding_autoregressive:
            decode = partial(blocks.decode, decode, self.eos)
        drawn = decode(model, options, memory, lengths, keys, self.retain_history)
        if model.ends_at_eos:
            drawn = [until_eos(candidate, self.eos) for candidate in drawn]
        beam = lengths.shape[1]
        sentences = [drawn[i : i + beam] for i in range(0, len(drawn), beam)]
        for s in empty.nonzero()[:, 0].tolist():
            frame = torch.tensor([self.dictionary.bos(), self.eos])
            sentences[s] = [
                c._replace(tokens=frame, log_probs=c.log_probs[:FRAME]) for c in sentences[s]
            ]
        return memory, sentences

    def _lengths(self, model: Family, memory: Memory) -> torch.Tensor:
        """The lengths to try, int64 (B, b1)."""
        longest = model.max_positions()[1]
        if not model.predicts_length:  # it grows from an empty frame
            return torch.full_like(memory.lengths(), FRAME)[:, None]
        if self.options.forces_length:
            return forced_lengths(memory.lengths(), self.options, longest)
        logits = model.length_predictor(memory)
        if self.options.length_beam_size > logits.shape[1]:
            raise UserError(
                f"--length-beam-size {self.options.length_beam_size}: this model, {model.title}, "
                "finds the length of a target by generating padding: leave it out"
            )
        return length_beam(
            logits,
            model.length_predictor.lengths(memory),
            self.options.length_beam_size,
            longest,
            self.options.length_beam_window,
        )

    def _race_scores(
        self,
        models: Sequence[Any],
        src_tokens: torch.Tensor,
        memory: Memory,
        sentences: list[int],
        candidates: list[list[tuple[torch.Tensor, torch.Tensor]]],
    ) -> Scores:
        """Scores of the candidates of some sentences in the middle of decoding."""
        rows = torch.tensor(sentences, device=src_tokens.device)
        active = [[Candidate(*c) for c in own] for own in candidates]
        batch = Batch(models, src_tokens[rows], memory.select(rows), active)
        return self.reranker.race_scores(batch)

    def _choose(
        self,
        models: Sequence[Any],
        src_tokens: torch.Tensor,
        memory: Memory,
        sentences: list[list[Drawn]],
    ) -> list[list[dict[str, Any]]]:
        """Hypotheses of each sentence, those that were dropped left out, the best first."""
        kept: list[list] = [[c for c in candidates if not c.dropped] for candidates in sentences]
        dropped: list[list] = [[c for c in candidates if c.dropped] for candidates in sentences]
        batch = Batch(models, src_tokens, memory, kept, dropped)
        # A candidate alone needs no reranker; its score is its own probability.
        alone = len(sentences[0]) == 1
        reranker = OwnProbability(self.options, self.dictionary) if alone else self.reranker
        chosen = []
        for candidates, scores in zip(kept, reranker.scores(batch)):
            # A stable sort: ties keep their order, the likeliest length first.
            ranked = sorted(zip(candidates, scores), key=lambda pair: -pair[1])
            chosen.append([hypothesis(candidate, score) for candidate, score in ranked])
        return chosen


def until_eos(candidate: Drawn, eos: int) -> Drawn:
    """A candidate up to its first EOS, in each step of its history as well."""

    def cut(tokens: torch.Tensor, log_probs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        ends = (tokens == eos).nonzero()[:, 0].tolist()
        length = ends[0] + 1 if ends else len(tokens)
        return tokens[:length], log_probs[:length]

    tokens, log_probs = cut(candidate.tokens, candidate.log_probs)
    return candidate._replace(
        tokens=tokens, log_probs=log_probs, history=[cut(*step) for step in candidate.history]
    )


def hypothesis(candidate: Drawn, score: float) -> dict[str, Any]:
    """A candidate as the dictionary that fairseq expects."""
    return {
        "steps": candidate.steps,
        "tokens": candidate.tokens,
        "positional_scores": candidate.log_probs,
        "score": candidate.log_probs.new_tensor(score),
        "hypo_attn": None,
        "alignment": None,
        "history": [{"tokens": t, "positional_scores": p} for t, p in candidate.history],
    }
