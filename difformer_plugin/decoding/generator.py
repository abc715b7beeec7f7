"""The iterative generator that fairseq calls: candidates, reverse process, rounding, reranking."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from fairseq.data import Dictionary

from difformer_plugin.decoding import blocks, engine, oracle, words
from difformer_plugin.decoding.candidates import (
    FRAME,
    Drawn,
    collapsed,
    forced_lengths,
    hypothesis,
    length_beam,
    repeats_something,
    until_eos,
)
from difformer_plugin.decoding.checks import check_options
from difformer_plugin.decoding.constraints import Constraint, encoder, read_constraints
from difformer_plugin.decoding.history import HistoryFile
from difformer_plugin.decoding.options import fits
from difformer_plugin.decoding.placement import place
from difformer_plugin.decoding.precision import check_precision
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
            raise UserError(
                "--history-file needs --retain-iter-history: give both, and use fairseq-generate"
            )
        self.history_file = options.history_file and HistoryFile(options.history_file, dictionary)
        self.constraints: list[Constraint] | None = None
        if options.constraints_file:
            self.constraints = read_constraints(options.constraints_file, encoder(dictionary))
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

    def check_nbest(self, nbest: int) -> None:
        """Check that there are as many hypotheses as are asked for.

        Raises:
            UserError: there are not.
        """
        options = self.options
        candidates = options.length_beam_size * options.noise_beam_size
        kept = min(candidates, options.race_keep) if options.race_after else candidates
        if not fits(nbest, int) or nbest < 1:
            raise UserError(f"--nbest must be a whole number from 1 on, not {nbest!r}")
        if nbest > kept:
            raise UserError(
                f"--nbest {nbest} needs as many candidates, and there are {kept}: raise "
                "--length-beam-size or --noise-beam-size"
            )

    @torch.no_grad()
    def generate(
        self,
        models: Sequence[Any],
        sample: dict[str, Any],
        prefix_tokens: torch.Tensor | None = None,
        constraints: Sequence[Constraint] | None = None,
        **unused: Any,
    ) -> list[list[dict[str, Any]]]:
        """Translate a batch.

        Args:
            models: the diffusion model and, if the reranker needs it, a teacher.
            sample: fairseq's; its sources carry BOS and EOS.
            prefix_tokens: int64 (B, N), how targets begin after BOS, which may include their EOS.
            constraints: what targets have to contain; by default, with --constraints-file, the
                lines of the file at the sentences' "id".
        Returns:
            for each sentence its candidates, the best first, as the dictionaries that fairseq
            expects of a hypothesis.
        """
        src_tokens = sample["net_input"]["src_tokens"]
        if constraints is None:
            constraints = self._constraints(sample, prefix_tokens)
        memory, sentences = self.draw(models, src_tokens, constraints)
        hypotheses = self._choose(models, src_tokens, memory, sentences)
        if self.history_file:
            self.history_file.write(sample, hypotheses)
        return hypotheses

    def _constraints(
        self, sample: dict[str, Any], prefix_tokens: torch.Tensor | None
    ) -> list[Constraint] | None:
        """The constraints of a batch; None if there are none."""
        count = len(sample["net_input"]["src_tokens"])
        if prefix_tokens is None and self.constraints is None:
            return None
        numbers = sample.get("id", torch.arange(count)).tolist()
        if prefix_tokens is None:
            return [self.constraint(number) for number in numbers]
        return [
            Constraint.of_prefix(row, self.dictionary, f"the prefix of sentence {number}")
            for number, row in zip(numbers, prefix_tokens.tolist())
        ]

    def constraint(self, number: int) -> Constraint:
        """The constraint of a sentence, by its number from 0.

        Raises:
            UserError: --constraints-file has no such line.
        """
        assert self.constraints is not None
        if number >= len(self.constraints):
            raise UserError(
                f"--constraints-file {self.options.constraints_file} has {len(self.constraints):,} "
                f"lines, and none for sentence {number:,} (counted from 0): write a line for each "
                "sentence, an empty one where nothing is given"
            )
        return self.constraints[number]

    def check_length(self, model: Family, constraint: Constraint, source_length: int) -> None:
        """Check that the model and the options leave room for a constraint.

        Args:
            source_length: with BOS and EOS.
        Raises:
            UserError: they do not.
        """
        if model.generates_words and (constraint.anywhere or constraint.suffix):
            raise UserError(f"{constraint.name}: {words.PREFIXES_ALONE}")
        longest = model.max_positions()[1]
        forced, option = None, "--force-length"
        if model.predicts_length and self.options.forces_length:
            lengths = torch.tensor([source_length])
            forced = int(forced_lengths(lengths, self.options, longest))
            option += "" if self.options.force_length else "-ratio"
        constraint.check_length(longest, forced, option)

    @torch.no_grad()
    def draw(
        self,
        models: Sequence[Any],
        src_tokens: torch.Tensor,
        constraints: Sequence[Constraint] | None = None,
    ) -> tuple[Memory, list[list[Drawn]]]:
        """Draw the candidates of a batch, without choosing among them.

        Args:
            models: as for `generate`.
            src_tokens: int64 (B, S), with BOS and EOS.
            constraints: of the B sentences; None for none.
        Returns:
            the sources' Memory, and each sentence's candidates in the order drawn: length by
            length, noise by noise.
        """
        model, options = models[0], self.options
        check_precision(model.denoiser, options)
        memory = model.encoder(src_tokens)
        empty = memory.lengths() <= FRAME
        own = self._checked(model, memory, empty, constraints)
        repeating = repeats_something(src_tokens, self.dictionary.pad())
        collapsing = [
            options.collapse_repeats and not (repeats or none or rule.gives_something)
            for repeats, none, rule in zip(repeating, empty.tolist(), own, strict=True)
        ]
        lengths = self._lengths(model, memory, own, empty, collapsing)
        lengths = lengths.repeat_interleave(options.noise_beam_size, dim=1)
        keys = sentence_keys(src_tokens, self.dictionary.pad(), self.seed)
        if self.speedups == PLAIN:
            decode = oracle.decode
        else:
            race_scores = partial(self._race_scores, models, src_tokens, memory, collapsing)
            decode = partial(engine.decode, speedups=self.speedups, race_scores=race_scores)
        if model.generates_words:
            decode = partial(words.decode, decode, self.dictionary, src_tokens)
        elif options.decoding_autoregressive:
            decode = partial(blocks.decode, decode, self.eos)
        frame = self.dictionary.bos(), self.eos
        given = place(model, options, memory, lengths, keys, own, frame)
        drawn = decode(model, options, memory, lengths, keys, self.retain_history, given=given)
        if model.ends_at_eos:
            rows = [None] * len(drawn) if given is None else given.cpu()
            drawn = [until_eos(c, self.eos, row) for c, row in zip(drawn, rows, strict=True)]
        beam = lengths.shape[1]
        sentences = [drawn[i : i + beam] for i in range(0, len(drawn), beam)]
        sentences = [
            [collapsed(c) for c in candidates] if here else candidates
            for candidates, here in zip(sentences, collapsing)
        ]
        for s in empty.nonzero()[:, 0].tolist():
            if not own[s].gives_something:
                tokens = torch.tensor(frame)
                sentences[s] = [
                    c._replace(tokens=tokens, log_probs=c.log_probs[:FRAME]) for c in sentences[s]
                ]
        return memory, sentences

    def _checked(
        self,
        model: Family,
        memory: Memory,
        empty: torch.Tensor,
        constraints: Sequence[Constraint] | None,
    ) -> list[Constraint]:
        """The constraints of all sentences, for which there is room.

        Args:
            empty: bool (B,), sources without tokens, which are translated by given words alone.
        """
        if constraints is None:
            return [Constraint()] * len(empty)
        found = []
        for own, source_length, is_empty in zip(
            constraints, memory.lengths().tolist(), empty.tolist(), strict=True
        ):
            self.check_length(model, own, source_length)
            found.append(own.alone() if is_empty and own.gives_something else own)
        return found

    def _lengths(
        self,
        model: Family,
        memory: Memory,
        constraints: Sequence[Constraint],
        empty: torch.Tensor,
        collapsing: Sequence[bool],
    ) -> torch.Tensor:
        """The lengths to try, int64 (B, b1).

        With --collapse-repeats the scale is room for what is dropped: it counts in those sentences
        alone whose repeats are dropped.
        """
        longest = model.max_positions()[1]
        if not model.predicts_length:  # it grows from its frame, or from given tokens
            return torch.full_like(memory.lengths(), FRAME)[:, None]
        least = torch.tensor([own.least_length for own in constraints], device=empty.device)
        if self.options.forces_length:
            lengths = forced_lengths(memory.lengths(), self.options, longest)
        else:
            scales = [
                1.0 if self.options.collapse_repeats and not own else self.options.length_scale
                for own in collapsing
            ]
            lengths = length_beam(
                model.length_predictor(memory),
                model.length_predictor.lengths(memory),
                self.options.length_beam_size,
                longest,
                self.options.length_beam_window,
                least,
                torch.tensor(scales, device=empty.device)[:, None],
            )
        exact = empty | torch.tensor([own.complete for own in constraints], device=empty.device)
        return torch.where(exact[:, None], least[:, None], lengths)

    def _race_scores(
        self,
        models: Sequence[Any],
        src_tokens: torch.Tensor,
        memory: Memory,
        collapsing: list[bool],
        sentences: list[int],
        candidates: list[list[tuple[torch.Tensor, torch.Tensor]]],
    ) -> Scores:
        """Scores of the candidates of some sentences in the middle of decoding."""
        rows = torch.tensor(sentences, device=src_tokens.device)
        if models[0].ends_at_eos:
            candidates = [
                [until_eos(Drawn(*c, 0, []), self.eos)[:2] for c in own] for own in candidates
            ]
        active = [
            [Candidate(*(collapsed(Drawn(*c, 0, []))[:2] if collapsing[i] else c)) for c in own]
            for i, own in zip(sentences, candidates)
        ]
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
