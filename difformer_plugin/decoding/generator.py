"""The iterative generator that fairseq calls: candidates, reverse process, rounding, choice."""

import torch
from fairseq.data.data_utils import post_process

from difformer_plugin.decoding.candidates import FRAME, forced_lengths, length_beam
from difformer_plugin.decoding.choice import bleu_scores, teacher_scores
from difformer_plugin.decoding.history import HistoryFile
from difformer_plugin.decoding.options import check_options
from difformer_plugin.decoding.reverse import predictor, reverse_process
from difformer_plugin.diffusion.noise import SentenceNoise, sentence_keys
from difformer_plugin.errors import UserError


class DiffusionGenerator:
    """2D parallel decoding (Sec. 3.3) with any diffusion model of this plug-in.

    The model is asked for its `encoder`, `length_predictor`, `decoding_process(options)`,
    `predict(...)`, `clamp(...)`, `round(...)`, `latent_shape(length)` and `diffusion_steps`;
    nothing here knows its family.

    Args:
        dictionary: the target dictionary.
        options: DecodingOptions.
        seed: of the noise.
        retain_history: keep the tokens of every step and their log-probabilities.
    """

    def __init__(self, dictionary, options, seed, retain_history=False):
        check_options(options)
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
                "model: put the Difformer first and a teacher second"
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
        models[0].decoding_process(self.options)
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

        beam = lengths.shape[1] * options.noise_beam_size
        lengths = lengths.repeat_interleave(options.noise_beam_size, dim=1).flatten()
        rows = torch.arange(len(src_tokens), device=lengths.device).repeat_interleave(beam)
        mask = torch.arange(int(lengths.max()), device=lengths.device) < lengths[:, None]
        keys = sentence_keys(src_tokens, self.dictionary.pad(), self.seed)
        noise = SentenceNoise(keys[rows], torch.arange(beam, device=rows.device).repeat(len(keys)))

        tokens, scores, history = self._decode(model, memory.select(rows), mask, noise)
        blank = empty[rows]
        tokens[blank, 0], tokens[blank, 1] = self.dictionary.bos(), self.dictionary.eos()

        tokens, scores, mask = tokens.cpu(), scores.cpu(), mask.cpu()
        history = [(step.cpu(), log_probs.cpu()) for step, log_probs in history]
        hypotheses = [
            {
                "steps": options.decoding_steps - options.decoding_early_stopping,
                "tokens": tokens[i][mask[i]],
                "positional_scores": scores[i][mask[i]],
                "score": scores[i][mask[i]].mean(),
                "hypo_attn": None,
                "alignment": None,
                "history": [
                    {"tokens": step[i][mask[i]], "positional_scores": log_probs[i][mask[i]]}
                    for step, log_probs in history
                ],
            }
            for i in range(len(rows))
        ]
        sentences = [hypotheses[i : i + beam] for i in range(0, len(rows), beam)]
        if beam > 1:
            self._rank(models, src_tokens[rows], sentences)
        if self.history_file:
            self.history_file.write(sample, sentences)
        return sentences

    def _lengths(self, model, memory):
        longest = model.max_positions()[1]
        if self.options.forces_length:
            return forced_lengths(memory.lengths(), self.options, longest)
        return length_beam(
            model.length_predictor(memory),
            model.length_predictor.lengths(memory),
            self.options.length_beam_size,
            longest,
            self.options.length_beam_window,
        )

    def _decode(self, model, memory, mask, noise):
        """Tokens (N, L), their log-probabilities (N, L), and both of each step."""
        options, history = self.options, []

        def observe(k, z, prediction):
            shown = prediction if options.retain_z_0_hat else z
            history.append(model.round(shown, mask))

        prediction = reverse_process(
            model.decoding_process(options),
            predictor(model, options, memory, mask),
            noise,
            model.latent_shape(mask.shape[1]),
            options.decoding_early_stopping,
            observe if self.retain_history else None,
        )
        return *model.round(prediction, mask), history

    def _rank(self, models, src_tokens, sentences):
        """Score the candidates of each sentence by the chosen measure and sort them, best first."""
        flat = [hypothesis for candidates in sentences for hypothesis in candidates]
        if self.options.bleu_mbr:
            scores = [
                score for candidates in sentences for score in bleu_scores(self._words(candidates))
            ]
        elif self.options.ppl_mbr:
            tokens = [hypothesis["tokens"] for hypothesis in flat]
            scores = teacher_scores(models[1], src_tokens, tokens, self.dictionary).tolist()
        else:
            scores = [hypothesis["score"].item() for hypothesis in flat]
        for hypothesis, score in zip(flat, scores):
            hypothesis["score"] = hypothesis["score"].new_tensor(score)
        for candidates in sentences:
            candidates.sort(key=lambda hypothesis: -hypothesis["score"].item())

    def _words(self, candidates):
        return [
            post_process(
                self.dictionary.string(
                    hypothesis["tokens"], extra_symbols_to_ignore={self.dictionary.bos()}
                ),
                self.options.mbr_remove_bpe,
            )
            for hypothesis in candidates
        ]
