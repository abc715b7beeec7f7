"""The rows of the decoding table, and the models and generators behind them."""

from argparse import Namespace
from collections.abc import Sequence
from os import PathLike
from typing import Any, NamedTuple

import torch

from difformer_plugin.bench import subjects
from difformer_plugin.bench.subjects import CMLMSubject, Subject, TransformerSubject
from difformer_plugin.data import pipeline
from difformer_plugin.decoding.generator import DiffusionGenerator
from difformer_plugin.decoding.options import DecodingOptions
from difformer_plugin.decoding.settings import read_settings
from difformer_plugin.decoding.speedups import ENGINE, PLAIN, Speedups
from difformer_plugin.errors import UserError
from difformer_plugin.reranking.mbr import looped_scores


class Row(NamedTuple):
    """How a diffusion model decodes.

    Attributes:
        help: its line in the legend of the table.
        speedups: those that are on.
        precision: --decoding-precision.
        cast: precision of the whole model, as with --bf16 of fairseq-generate.
        exact: whether its output must be that of the plain path.
        gpu: whether it makes sense on a GPU only.
    """

    help: str
    speedups: Speedups = ENGINE
    precision: str | None = None
    cast: torch.dtype | None = None
    exact: bool = False
    gpu: bool = False


def only(name: str) -> Speedups:
    """A single speed-up."""
    return PLAIN._replace(**{name: True})


ROWS = {
    "plain": Row("the plain path, without speed-ups", PLAIN, exact=True),
    "share": Row("only: keys and values of a source projected once", only("share"), exact=True),
    "pack": Row("only: no computation for padding", only("pack"), exact=True),
    "chunk": Row("only: batches split into pieces that fit the caches", only("chunk"), exact=True),
    "count": Row("only: n-grams of MBR counted in tensors", only("count"), exact=True),
    "bf16": Row("the plain path with the whole model in bf16", PLAIN, cast=torch.bfloat16),
    "engine": Row("share, pack, chunk and count together", exact=True),
    "engine-bf16": Row("the engine with --decoding-precision bf16", precision="bf16"),
    "engine-int8": Row("the engine with --decoding-precision int8", precision="int8"),
    "engine-fp16": Row("the engine with --decoding-precision fp16", precision="fp16", gpu=True),
}
TUNED = "tuned"
BASELINES = {
    "transformer": (
        TransformerSubject,
        "fairseq's Transformer of the same size, beam 5",
    ),
    "cmlm": (CMLMSubject, "fairseq's CMLM of the same size, 10 iterations, one length"),
}
LIMIT, MBR, LINES = "limit", "mbr", "lines"
TABLES = {
    LIMIT: "the engine's operations per second against the rate of matrix products alone, for the "
    "largest batches",
    MBR: "choosing among synthetic candidates, with sacreBLEU in a loop and with tensors",
    LINES: "raw text to raw text, a line at a time, as `difformer translate` does it",
}
NAMES = [*ROWS, TUNED, *BASELINES, *TABLES]


def legend(settings: str | PathLike | None) -> dict[str, str]:
    """What each row and table is, by name."""
    return (
        {name: row.help for name, row in ROWS.items()}
        | {TUNED: f"the engine with the options of {settings}"}
        | {name: text for name, (_, text) in BASELINES.items()}
        | TABLES
    )


def choose_rows(args: Namespace, device: torch.device) -> list[str]:
    """The names of the rows and tables to measure, in the order of NAMES.

    Args:
        args: of `difformer bench decode`; --rows names them, or else all that make sense are taken.
    Raises:
        UserError: a row is unknown or cannot be measured.
    """
    wanted, settings = args.rows, args.settings
    if unknown := sorted(set(wanted or ()) - set(NAMES)):
        raise UserError(
            f"--rows: no such row as {', '.join(unknown)}; there are {', '.join(NAMES)}"
        )
    if TUNED in (wanted or ()) and not settings:
        raise UserError("the row tuned needs --settings FILE, which `difformer tune` writes")
    if settings:
        read_settings(settings)
    times_lines = bool(args.path) and args.sentences > 1 and pipeline.load(args.data) is not None
    if LINES in (wanted or ()) and not times_lines:
        raise UserError(
            "the row lines translates raw text: it needs a trained model (--path), a data-bin of "
            "`difformer prepare`, whose pipeline.json says how text is tokenised, and two "
            "--sentences or more"
        )
    if wanted:
        if not (set(wanted) - set(TABLES)):
            raise UserError(
                f"--rows: {', '.join(TABLES)} are shown beside other rows: add one, such as engine"
            )
        return [name for name in NAMES if name in wanted]
    gpu = device.type == "cuda"
    return [
        name
        for name in NAMES
        if not (name == TUNED and not settings)
        and (name != LINES or times_lines)
        and not (name in ROWS and ROWS[name].gpu and not gpu)
    ]


class Setting(NamedTuple):
    """What a block of the table is measured with.

    Attributes:
        steps: K.
        beams: (b1, b2), the numbers of lengths and of noises.
        batch_size: sentences in a batch.
    """

    steps: int
    beams: tuple[int, int]
    batch_size: int

    @property
    def title(self) -> str:
        """A headline."""
        b1, b2 = self.beams
        return f"K = {self.steps}, b = {b1} x {b2}, batches of {self.batch_size}"

    def options(self, precision: str | None = None, steps: int | None = None) -> DecodingOptions:
        """Its options of decoding; several candidates are reranked by MBR with BLEU.

        Args:
            precision: --decoding-precision.
            steps: instead of the setting's own.
        """
        b1, b2 = self.beams
        return DecodingOptions(
            decoding_steps=steps or self.steps,
            length_beam_size=b1,
            noise_beam_size=b2,
            bleu_mbr=b1 * b2 > 1,
            decoding_precision=precision,
            force_precision=True,
        )


class Systems:
    """The models behind the rows, and their generators.

    Args:
        args: of `difformer bench decode`.
        names: of the rows that are measured.
        device: of the models.
    """

    def __init__(self, args: Namespace, names: Sequence[str], device: torch.device):
        self.seed, self.settings = args.seed, args.settings
        diffusion = subjects.diffusion(
            args.data, args.path, args.arch, args.model_options, args.seed
        )
        model = diffusion.model
        found: dict[str, subjects.Subject] = {model.cfg._name: diffusion}
        for name, (kind, _) in BASELINES.items():
            if name in names:
                path = getattr(args, name)
                found[name] = subjects.baseline(kind, args.data, path, model, args.seed)
        self.subjects = {name: subject.load(args.subset, device) for name, subject in found.items()}
        self.diffusion = diffusion
        self.casts = {}

    def generator(self, name: str, setting: Setting, steps: int | None = None) -> Any:
        """The generator of a row.

        Args:
            steps: instead of the setting's, for a pass that only measures memory.
        """
        if name in BASELINES:
            return self.subjects[name].generator
        if name == TUNED:
            options, speedups = DecodingOptions(**read_settings(self.settings)), ENGINE
        else:
            row = ROWS[name]
            options, speedups = setting.options(row.precision, steps), row.speedups
        dictionary = self.diffusion.task.target_dictionary
        generator = DiffusionGenerator(dictionary, options, self.seed, speedups=speedups)
        if not speedups.count:
            reranker: Any = generator.reranker
            reranker.text_scores = looped_scores
        generator.check_models([self.diffusion.model])
        return generator

    def subject(self, name: str) -> Subject:
        """The subject of a row."""
        if name in BASELINES:
            return self.subjects[name]
        dtype = ROWS[name].cast if name in ROWS else None
        if dtype is None:
            return self.diffusion
        if dtype not in self.casts:
            self.casts[dtype] = self.diffusion.cast(dtype)
        return self.casts[dtype]
