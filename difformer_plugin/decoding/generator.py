"""The iterative generator that fairseq calls: candidates, reverse process, rounding, choice."""

from functools import partial

import torch
from fairseq.data.data_utils import post_process

from difformer_plugin.decoding import engine
from difformer_plugin.decoding import oracle as plain
from difformer_plugin.decoding.candidates import FRAME, forced_lengths, length_beam
from difformer_plugin.decoding.history import HistoryFile
from difformer_plugin.decoding.options import check_options
from difformer_plugin.decoding.speedups import ENGINE, PLAIN
from difformer_plugin.diffusion.noise import sentence_keys
from difformer_plugin.errors import UserError
from difformer_plugin.reranking.choice import bleu_scores
from difformer_plugin.reranking.ngram_bleu import mbr_scores
from difformer_plugin.reranking.teacher_scores import candidate_log_probs


class DiffusionGenerator:
    """2D parallel decoding (Sec. 3.3) with any diffusion model of this plug-in.

    The model is asked for its `encoder`, `length_predictor` and what `DiffusionModel` names for
    decoding; nothing here knows its family.

    Args:
        dictionary: the target dictionary.
        options: DecodingOptions.
        seed: of the noise.
        retain_history: keep the tokens of every step and their log-probabilities.
        means: by which decoding is made fast; `PLAIN` for none.
    """

    def __init__(self, dictionary, options, seed, retain_history=False, means=ENGINE):
        check_options(options)
        self.means = means
        self.dictionary, self.options, self.seed = dictionary, options, seed
        self.retain_history = retain_history
        if options.history_file and not retain_history:
            raise UserError("--history-file needs --retain-iter-history")
        self.history_file = options.history_file and HistoryFile(options.history_file, dictionary)
        self.eos = dictionary.eos()  # fairseq leaves this symbol out of what it prints

    def check_models(self, models):
        """One model, or with --ppl-mbr a second one to choose among its candidates."""
        if not hasattr(models[0], "decoding_process"):
            raise UserError(
                f"the first model of --path is a {type(models[0]).__name__}, not a diffusion "
                "model: put the diffusion model first and a teacher second"
            )
        if self.options.ppl_mbr and len(models) < 2:
            raise UserError("--ppl-mbr needs a teacher: --path difformer.pt:teacher.pt")
        if self.options.ppl_mbr and hasattr(models[1], "decoding_process"):
            raise UserError(
                "the teacher, the second model of --path, must be autoregressive, "
                f"not a {type(models[1]).__name__}"
            )
        if len(models) > 1 + self.options.ppl_mbr:
            raise UserError(
                f"--path names {len(models)} models: give one, or a second one as the teacher of "
                "--ppl-mbr (ensembles are not supported)"
            )
        models[0].check_decoding(self.options)
        longest = models[0].max_positions()[1]
        if self.options.force_length is not None and self.options.force_length + FRAME > longest:
            raise UserError(
                f"--force-length must be at most {longest - FRAME}, which with BOS and EOS fills "
                f"the model's {longest} target positions, not {self.options.force_length}"
            )

    @torch.no_grad()
    def generate(self, models, sample, prefix_tokens=None, **unused):
        """Translate a batch.

        Args:
            models: the diffusion model and, with --ppl-mbr, the teacher.
            sample: fairseq's; its sources carry BOS and EOS.
        Returns:
            for each sentence its candidates, the best first, as the dictionaries that fairseq
            expects of a hypothesis.
        """
        if prefix_tokens is not None:
            raise UserError("--prefix-size: diffusion decoding has no forced prefixes")
        model, options = models[0], self.options
        src_tokens = sample["net_input"]["src_tokens"]
        memory = model.encoder(src_tokens)
        lengths = self._lengths(model, memory)
        empty = memory.lengths() <= FRAME
        lengths[empty] = FRAME

        lengths = lengths.repeat_interleave(options.noise_beam_size, dim=1)
        keys = sentence_keys(src_tokens, self.dictionary.pad(), self.seed)
        decode = plain.decode if self.means == PLAIN else partial(engine.decode, means=self.means)
        drawn = decode(model, options, memory, lengths, keys, self.retain_history)
        beam = lengths.shape[1]
        sentences = [drawn[i : i + beam] for i in range(0, len(drawn), beam)]
        for s in empty.nonzero()[:, 0].tolist():
            frame = torch.tensor([self.dictionary.bos(), self.eos])
            sentences[s] = [
                c._replace(tokens=frame, log_probs=c.log_probs[:FRAME]) for c in sentences[s]
            ]
        hypotheses = self._choose(models, src_tokens, sentences)
        if self.history_file:
            self.history_file.write(sample, hypotheses)
        return hypotheses

    def _lengths(self, model, memory):
        longest = model.max_positions()[1]
        if model.length_predictor is None:  # lengths grow from an empty frame
            return torch.full_like(memory.lengths(), FRAME)[:, None]
        if self.options.forces_length:
            return forced_lengths(memory.lengths(), self.options, longest)
        return length_beam(
            model.length_predictor(memory),
            model.length_predictor.lengths(memory),
            self.options.length_beam_size,
            longest,
            self.options.length_beam_window,
        )

    def _choose(self, models, src_tokens, sentences):
        """Hypotheses of each sentence, those that were dropped left out, the best first."""
        chosen = []
        for candidates, scores in zip(sentences, self._scores(models, src_tokens, sentences)):
            scored = zip((c for c in candidates if not c.dropped), scores)
            # a stable order: of equal scores the first, which has the likeliest length
            ranked = sorted(scored, key=lambda pair: -pair[1])
            chosen.append([hypothesis(candidate, score) for candidate, score in ranked])
        return chosen

    def _scores(self, models, src_tokens, sentences):
        """By the chosen measure, for each sentence a list of those that were not dropped."""
        kept = [[c for c in candidates if not c.dropped] for candidates in sentences]
        beam = len(sentences[0])
        if beam > 1 and self.options.bleu_mbr:
            return self._mbr(kept, [[c for c in own if c.dropped] for own in sentences])
        if beam > 1 and self.options.ppl_mbr:
            tokens = [[c.tokens for c in candidates] for candidates in kept]
            return candidate_log_probs(models[1], src_tokens, tokens, self.dictionary)
        return [[c.log_probs.mean().item() for c in candidates] for candidates in kept]

    def _mbr(self, kept, dropped):
        """Mean BLEU of each candidate against the others, the dropped ones included."""
        texts, evidence = (
            [[self._words(c.tokens) for c in candidates] for candidates in sentences]
            for sentences in (kept, dropped)
        )
        if self.means.count:
            return mbr_scores(texts, evidence=evidence)
        return [bleu_scores(own + others)[: len(own)] for own, others in zip(texts, evidence)]

    def _words(self, tokens):
        # a list, since a tensor is slow to iterate over
        words = self.dictionary.string(
            tokens.tolist(), extra_symbols_to_ignore={self.dictionary.bos()}
        )
        return post_process(words, self.options.mbr_remove_bpe)


def hypothesis(candidate, score):
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
