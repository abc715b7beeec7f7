"""fairseq's hub interface for diffusion models: what `from_pretrained` returns."""

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from fairseq import hub_utils
from fairseq.hub_utils import GeneratorHubInterface
from omegaconf import open_dict

from difformer_plugin.checkpoints.model_folder import DECODING, find_weights, read_task
from difformer_plugin.data.data_bin import language_pair
from difformer_plugin.data.pipeline import TextCodec, load_codec
from difformer_plugin.decoding.candidates import FRAME
from difformer_plugin.decoding.hub_checks import check_call, check_loading, check_sentences
from difformer_plugin.decoding.settings import read_settings
from difformer_plugin.errors import UserError


class TranslationHub(GeneratorHubInterface):
    """Translates raw text. Unknown options are refused.

    Args:
        cfg: fairseq's configuration of the checkpoint.
        task: the task.
        models: the diffusion model and, if needed, its teacher.
        codec: turns raw text into subwords and back; None for fairseq's own tokeniser and
            subwords, as in `cfg`.
    """

    def __init__(self, cfg: Any, task: Any, models: list[Any], codec: TextCodec | None = None):
        super().__init__(cfg, task, models)
        self.codec = codec

    def translate(
        self, sentences: Any, beam: Any = None, verbose: bool = False, **options: Any
    ) -> Any:
        """Translate a sentence (str) or a list of them.

        Args:
            options: of decoding, `seed`, `decoding_settings`; with `constraints_file`, line i of
                the file belongs to sentence i.
        Raises:
            UserError: an option is unknown, or has an impossible value; or a sentence is no str.
        """
        return self.sample(sentences, beam, verbose, **options)

    def sample(
        self, sentences: Any, beam: Any = None, verbose: bool = False, **options: Any
    ) -> Any:
        """See `translate`."""
        check_call(beam, options)
        if not isinstance(sentences, str):
            sentences = check_sentences(sentences)
        if options.get("nbest", 1) != 1:
            raise UserError("nbest: translate returns the best translation; use generate for more")
        return super().sample(sentences, beam, verbose, **options)

    def generate(
        self,
        tokenized_sentences: Any,
        beam: Any = None,
        verbose: bool = False,
        skip_invalid_size_inputs: bool = False,
        inference_step_args: Any = None,
        prefix_allowed_tokens_fn: Any = None,
        **options: Any,
    ) -> Any:
        """Translate tokens (L,), or a list of them; see `translate`.

        Args:
            inference_step_args: may hold `prefix_tokens`, int64 (n, N), of which row i is how the
                translation of sentence i begins after BOS, padded on the right.
        Returns:
            for each sentence its hypotheses, the best first.
        Raises:
            UserError: see `translate`; or words are given in two ways.
        """
        check_call(beam, options)
        if prefix_allowed_tokens_fn is not None:
            raise UserError(
                "prefix_allowed_tokens_fn: tokens are not drawn from left to right; give "
                "constraints_file, or prefix_tokens in inference_step_args"
            )
        if torch.is_tensor(tokenized_sentences) and tokenized_sentences.dim() == 1:
            return self.generate(
                [tokenized_sentences], beam, verbose, skip_invalid_size_inputs,
                inference_step_args, **options,
            )[0]  # fmt: skip
        prefixes = self._prefixes(tokenized_sentences, inference_step_args, options)
        generate = partial(
            super().generate, beam=1, verbose=verbose,
            skip_invalid_size_inputs=skip_invalid_size_inputs,
        )  # fmt: skip
        if prefixes is None:
            return generate(tokenized_sentences, **options)
        # One by one: batches have another order than the rows.
        found = []
        for tokens, row in zip(tokenized_sentences, prefixes.split(1)):
            given = {"prefix_tokens": row.to(self.device)}
            own = generate([tokens], inference_step_args=given, prefix_size=row.shape[1], **options)
            found += own
        return found

    def _prefixes(
        self, sentences: Any, given: Mapping[str, Any] | None, options: Mapping[str, Any]
    ) -> torch.Tensor | None:
        """The prefixes in `inference_step_args`, None if there are none.

        Raises:
            UserError: there is something else, or not a row for each sentence, or a file as well.
        """
        prefixes = (given or {}).get("prefix_tokens")
        if unknown := set(given or {}) - {"prefix_tokens"}:
            raise UserError(
                f"inference_step_args: no such argument as {', '.join(sorted(unknown))}; give "
                "prefix_tokens, or constraints_file as an option of its own"
            )
        if prefixes is None:
            return None
        if options.get("constraints_file", self.task.cfg.constraints_file):
            raise UserError("prefix_tokens and constraints_file exclude each other: choose one")
        if not torch.is_tensor(prefixes) or prefixes.dim() != 2 or len(prefixes) != len(sentences):
            raise UserError(
                f"prefix_tokens must be a tensor of {len(sentences)} rows, one for each sentence"
            )
        return prefixes

    def _build_batches(self, tokens: Any, skip_invalid_size_inputs: bool) -> Any:
        """fairseq's batches of sentences, with a line of --constraints-file for each.

        Training's --max-tokens bounds batches of several sentences, and not the longest sentence.
        """
        self.task.given_words.check_count(len(tokens))
        data = self.cfg.dataset
        if data.max_tokens is not None:
            longest = max(map(len, tokens), default=0) + FRAME
            with open_dict(data):
                data.max_tokens = max(data.max_tokens, longest)
        return super()._build_batches(tokens, skip_invalid_size_inputs)

    # What fairseq's tokeniser and subwords do, unless `codec` does it

    def tokenize(self, sentence: str) -> str:
        """Source tokens of raw text."""
        return self.codec.tokenize(sentence) if self.codec else super().tokenize(sentence)

    def detokenize(self, sentence: str) -> str:
        """Raw text of target tokens."""
        return self.codec.detokenize(sentence) if self.codec else super().detokenize(sentence)

    def apply_bpe(self, sentence: str) -> str:
        """Subwords of tokens."""
        return self.codec.apply_bpe(sentence) if self.codec else super().apply_bpe(sentence)

    def remove_bpe(self, sentence: str) -> str:
        """Tokens of subwords."""
        return self.codec.remove_bpe(sentence) if self.codec else super().remove_bpe(sentence)


def load_hub(
    model: str,
    checkpoint: str,
    data: str,
    archives: dict[str, Any],
    pipeline: bool,
    options: dict[str, Any],
) -> TranslationHub:
    """See `families.base.DiffusionModel.from_pretrained`.

    Args:
        archives: fairseq's names of published models.
        options: the keyword arguments.
    """
    if "data" in options:  # fairseq replaces it
        raise UserError(
            "from_pretrained: data has no effect; name the data-bin by data_name_or_path, the "
            "third argument"
        )
    folder = Path(model)
    if folder.is_file() and folder.suffix == ".pt":
        folder, checkpoint = folder.parent, folder.name
        model = str(folder)
    published = model in archives or "://" in model
    if not published and not folder.exists():
        raise UserError(f"from_pretrained: {model}: no such folder or checkpoint")
    if checkpoint == "model.pt" and folder.is_dir():
        checkpoint = find_weights(folder).name
    data_bin = folder / data if data.startswith(".") else Path(data)
    if folder.is_dir() and "://" not in data and not data_bin.exists():
        raise UserError(f"from_pretrained: {data}: no such folder; give a data-bin")
    wanted = pipeline and not {"tokenizer", "bpe"} & options.keys()
    langs = _trained_languages(folder / checkpoint.split(os.pathsep)[0], options)
    folders = (folder, data_bin) if wanted else ()
    codec = next(filter(None, (load_codec(each, langs) for each in folders)), None)
    if codec is not None:
        pair = codec.pipeline.source_lang, codec.pipeline.target_lang
    else:
        pair = _languages(data_bin, langs)
    if pair[0]:
        options = {"source_lang": pair[0], "target_lang": pair[1], **options}
    if (folder / DECODING).is_file() and "decoding_settings" not in options:
        options = {**read_settings(folder / DECODING), **options}
    loaded = hub_utils.from_pretrained(model, checkpoint, data, archives, **options)
    check_loading(loaded["args"], loaded["task"], options)
    return TranslationHub(loaded["args"], loaded["task"], loaded["models"], codec)


def _trained_languages(weights: Path, options: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Source and target language of a checkpoint in the direction that fits `options`.

    Where neither direction fits, what `options` name alone. None stands for unknown.
    """
    names = "source_lang", "target_lang"
    trained = read_task(weights)[0] if weights.is_file() else {}
    source, target = (options.get(name) for name in names)
    own, other = (trained.get(name) for name in names)
    for pair in ((own, other), (other, own)):  # a data-bin serves both directions
        if source in (None, pair[0]) and target in (None, pair[1]):
            return pair
    return source, target


def _languages(
    data_bin: Path, langs: tuple[str | None, str | None]
) -> tuple[str | None, str | None]:
    """The languages of a model, those that are not known from the names of a data-bin's files.

    Where these do not tell them, the checkpoint's hold. fairseq's tokeniser would take every
    language for English.
    """
    try:
        return language_pair(data_bin, *langs)
    except (UserError, OSError):
        return None, None
