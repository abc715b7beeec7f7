"""A trained model that translates raw text."""

import logging
from argparse import Namespace
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from fairseq import checkpoint_utils, utils

from difformer_plugin.checkpoints.model_folder import (
    DECODING,
    find_dictionaries,
    find_weights,
    read_task,
)
from difformer_plugin.data import pipeline
from difformer_plugin.data.data_bin import language_pair
from difformer_plugin.data.pipeline import TextCodec
from difformer_plugin.decoding.candidates import FRAME
from difformer_plugin.decoding.constraints import Constraint, encoder, read_constraints
from difformer_plugin.decoding.settings import (
    OPTIONS,
    check_not_both,
    mention_settings_file,
    read_settings,
)
from difformer_plugin.errors import UserError
from difformer_plugin.families.contract import is_diffusion_model
from difformer_plugin.translation.long_lines import split_line
from difformer_plugin.translation.settings import Settings, apply_text_options

logger = logging.getLogger(__name__)
MAX_TOKENS = 8192  # source tokens of a batch, padding included, whatever the number of sentences
MAX_LETTERS = 100  # a text of more letters per subword is too long, and need not be encoded


@dataclass(frozen=True)
class Loaded:
    """A model as it was loaded.

    Attributes:
        weights: the file.
        folder: has the dictionaries.
        models: the diffusion model and, if there is one, its teacher.
        cfg: fairseq's configuration.
        task: the task.
        codec: turns raw text into subwords and back.
        num_updates: of the training.
    """

    weights: Path
    folder: Path
    models: list[Any]
    cfg: Any
    task: Any
    codec: TextCodec
    num_updates: int


def load_model(settings: Settings) -> Loaded:
    """Load a model with its dictionaries and its pipeline.

    Raises:
        UserError: a file is missing or damaged, something does not fit, or the pipeline is not
            known.
    """
    weights = find_weights(settings.model)
    cfg, num_updates = read_task(weights)
    folder, is_beside = find_dictionaries(weights, cfg, settings.data)
    found, options = pipeline.load(folder), settings.text
    asked = options.source_lang, options.target_lang
    trained = cfg.get("source_lang"), cfg.get("target_lang")
    if _differ(asked, trained):
        raise UserError(
            f"{weights} was trained from {trained[0]} to {trained[1]}: leave out --source-lang and "
            "--target-lang, or name the checkpoint of the other direction"
        )
    if found is not None:
        own = found.in_order(trained)  # a data-bin serves both directions
        pair = own.source_lang, own.target_lang
        if is_beside and _differ(asked, pair):  # of an earlier version, which did not save its own
            logger.warning(
                f"{folder}/{pipeline.FILE} says that the model translates from {pair[0]} to "
                f"{pair[1]}: leave out --source-lang and --target-lang if it was trained so"
            )
        langs = asked[0] or own.source_lang, asked[1] or own.target_lang
    else:
        langs = language_pair(folder, asked[0] or trained[0], asked[1] or trained[1])
    described, file = apply_text_options(found, folder, options, langs)
    codec = TextCodec(described, file)
    paths = [str(path) for path in (weights, settings.teacher) if path is not None]
    overrides = {
        "data": str(folder),
        **dict(zip(("source_lang", "target_lang"), langs)),
        **{"use_ema": settings.use_ema, "eval_bleu": False},
    }
    models, cfg, task = checkpoint_utils.load_model_ensemble_and_task(paths, overrides)
    if not is_diffusion_model(models[0]):
        raise UserError(
            f"{weights} is a {type(models[0]).__name__}, not a diffusion model: translate with "
            "fairseq-interactive"
        )
    return Loaded(weights, folder, models, cfg, task, codec, num_updates)


def _differ(asked: tuple[str | None, str | None], own: tuple[str | None, str | None]) -> bool:
    """Whether a language that was asked for differs from the known one; None is unknown."""
    return any(mine and known and mine != known for mine, known in zip(asked, own))


class Translator:
    """Translates lines of raw text.

    Args:
        settings: see there.
        batch_size: sentences decoded together.
        nbest: translations of each line.
        split_above: greatest number of subwords of a part that is translated as a whole; None for
            the longest source that the model has positions for.
        warn: called with a line of text for each line that is split.
    Attributes:
        limit: greatest number of subwords of a part.
    Raises:
        UserError: see `load_model`; an option does not fit the model.
    """

    def __init__(
        self,
        settings: Settings,
        batch_size: int = 50,
        nbest: int = 1,
        split_above: int | None = None,
        warn: Callable[[str], None] = print,
    ) -> None:
        self.loaded = loaded = load_model(settings)
        self.batch_size, self.nbest, self.warn = batch_size, nbest, warn
        self.options = decoding_options(settings, loaded.weights)
        self.device = torch.device(
            "cuda" if torch.cuda.is_available() and not settings.cpu else "cpu"
        )
        for model in loaded.models:
            model.to(self.device).eval()
            model.prepare_for_inference_(loaded.cfg)
        # The file has raw words, which the generator cannot read.
        decoding = self.options | {"constraints_file": None}
        given = Namespace(**decoding, decoding_settings=None, nbest=nbest, seed=settings.seed)
        path = settings.decoding_settings
        with mention_settings_file(path):
            self.generator = loaded.task.build_generator(loaded.models, given)
        self.constraints: list[Constraint] | None = None
        if file := self.options["constraints_file"]:
            split = lambda text: loaded.codec.encode_target(text).split()  # noqa: E731
            self.constraints = read_constraints(file, encoder(loaded.task.target_dictionary, split))
        limits = [loaded.task.max_positions(), *(m.max_positions() for m in loaded.models)]
        self.limit = utils.resolve_max_positions(*limits)[0] - FRAME
        if split_above is not None:
            self.limit = min(self.limit, split_above)

    def check_constraints(self, lines: int) -> None:
        """Check that --constraints-file has a line for each of so many lines.

        Raises:
            UserError: it has more or fewer.
        """
        if self.constraints is not None and len(self.constraints) != lines:
            raise UserError(
                f"--constraints-file {self.options['constraints_file']} has "
                f"{len(self.constraints):,} lines, but the input has {lines:,}: write a line for "
                "each, an empty one where nothing is given"
            )

    def check_lines(self, lines: Iterable[tuple[int, str]]) -> None:
        """Check that there is room for the words that --constraints-file gives for lines.

        Args:
            lines: (number, raw text) of as many lines as the file has; see `__call__`.
        Raises:
            UserError: there is not.
        """
        for number, text in lines if self.constraints is not None else ():
            found = self._constraint(number)
            if found.gives_something:
                size = self._size(text)
                if size > self.limit:
                    raise _too_long(found, number)
                self.generator.check_length(self.loaded.models[0], found, size + FRAME)

    def _constraint(self, number: int, parts: int = 1) -> Constraint:
        """The constraint of a line of the input, which is translated in so many parts."""
        if self.constraints is None:
            return Constraint()
        if number > len(self.constraints):
            self.check_constraints(number)
        found = self.constraints[number - 1]
        if found.gives_something and parts > 1:
            raise _too_long(found, number)
        return found

    def __call__(self, lines: Sequence[tuple[int, str]]) -> list[list[tuple[float, str]]]:
        """Translate lines.

        Args:
            lines: (number in the file, from 1, raw text).
        Returns:
            for each line its translations (score, text), the best first. The score of a line that
            was split is the mean of its parts.
        """
        parts: list[torch.Tensor] = []
        constraints: list[Constraint] = []
        counts = []
        for number, text in lines:
            own = self._parts(number, text)
            parts += own
            counts.append(len(own))
            constraints += [self._constraint(number, len(own))] * len(own)
        translated = iter(self._translate(parts, constraints))
        return [self._join([next(translated) for _ in range(count)]) for count in counts]

    def encode(self, text: str) -> torch.Tensor:
        """Source tokens of raw text with EOS, int64 (L,)."""
        dictionary = self.loaded.task.source_dictionary
        subwords = self.loaded.codec.encode(text)
        return dictionary.encode_line(subwords, add_if_not_exist=False).long()

    def _size(self, text: str) -> int:
        """Number of subwords; of very long texts that of letters, which is no less."""
        long = len(text) > MAX_LETTERS * self.limit
        return len(text) if long else len(self.encode(text)) - 1

    def _parts(self, number: int, text: str) -> list[torch.Tensor]:
        """The tokens of a line, or of its parts if it is too long."""
        if len(text) <= MAX_LETTERS * self.limit:
            tokens = self.encode(text)
            if len(tokens) - 1 <= self.limit:
                return [tokens]
        parts = split_line(text, self._size, self.limit) or [""]
        self.warn(
            f"line {number} has more than {self.limit:,} subwords: translated in {len(parts)} parts"
        )
        return [self.encode(part) for part in parts]

    def _translate(
        self, sources: Sequence[torch.Tensor], constraints: Sequence[Constraint]
    ) -> list[list[dict[str, Any]]]:
        """The hypotheses of sources, the best first."""
        found: dict[int, list[dict[str, Any]]] = {}
        lengths = torch.tensor([len(source) for source in sources])
        dataset = self.loaded.task.build_dataset_for_inference(sources, lengths)
        for numbers in batches(lengths.tolist(), self.batch_size):
            found |= self._decode(dataset, constraints, numbers)
        return [found[i] for i in range(len(sources))]

    def _decode(
        self, dataset: Any, constraints: Sequence[Constraint], numbers: list[int]
    ) -> dict[int, list[dict[str, Any]]]:
        """Decode a batch; if it does not fit into the memory of the GPU, in halves.

        Raises:
            UserError: a sentence alone does not fit.
        """
        try:
            batch = dataset.collater([dataset[i] for i in numbers])
            batch = utils.apply_to_sample(lambda tensor: tensor.to(self.device), batch)
            ids = batch["id"].tolist()
            with torch.no_grad():
                hypotheses = self.generator.generate(
                    self.loaded.models, batch, constraints=[constraints[i] for i in ids]
                )
            return dict(zip(ids, hypotheses, strict=True))
        except torch.OutOfMemoryError:
            if len(numbers) == 1:
                raise UserError(
                    "a line alone does not fit into the GPU's memory: use fewer candidates, a "
                    "smaller --split-above, or --cpu"
                ) from None
        # outside of the handler, so that what the failed attempt holds is released
        half = len(numbers) // 2
        return self._decode(dataset, constraints, numbers[:half]) | self._decode(
            dataset, constraints, numbers[half:]
        )

    def _join(self, parts: Sequence[Sequence[dict[str, Any]]]) -> list[tuple[float, str]]:
        """The n-best translations of a line from those of its parts."""
        joined = []
        for rank in range(self.nbest):
            own = [hypotheses[min(rank, len(hypotheses) - 1)] for hypotheses in parts]
            score = sum(float(hypothesis["score"]) for hypothesis in own) / len(own)
            texts = [self._text(hypothesis["tokens"]) for hypothesis in own]
            joined.append((score, " ".join(filter(None, texts))))
        return joined

    def _text(self, tokens: torch.Tensor) -> str:
        """Raw text of target tokens."""
        dictionary = self.loaded.task.target_dictionary
        # as fairseq-interactive prints it: a model that predicts padding shows it
        return self.loaded.codec.decode(dictionary.string(tokens.int().cpu()))


def _too_long(constraint: Constraint, number: int) -> UserError:
    """What is said of a line that has to be split although words are given for it."""
    return UserError(
        f"{constraint.name}: line {number} of the input is too long to be translated as a whole: "
        "split it, or give no words for it"
    )


def batches(lengths: Sequence[int], size: int) -> list[list[int]]:
    """Numbers of sentences in batches of similar lengths, with at most MAX_TOKENS and `size`."""
    found: list[list[int]] = []
    for number in sorted(range(len(lengths)), key=lengths.__getitem__):
        room = found and len(found[-1]) < size
        if room and (len(found[-1]) + 1) * (lengths[number] + FRAME) <= MAX_TOKENS:
            found[-1].append(number)
        else:
            found.append([number])
    return found


def decoding_options(settings: Settings, weights: Path) -> dict[str, Any]:
    """All options of decoding: fairseq-generate's defaults, then a file's, then the user's.

    Args:
        weights: the file of --decoding-settings may be beside them.
    Raises:
        UserError: the file cannot be used, or the user names it and contradicts it.
    """
    beside = weights.parent / DECODING
    path = settings.decoding_settings or (beside if beside.is_file() else None)
    values = read_settings(path) if path else {}
    if settings.decoding_settings:
        check_not_both(settings.decoding, values, path)
    return {name: f.default for name, f in OPTIONS.items()} | values | dict(settings.decoding)
