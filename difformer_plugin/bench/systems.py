"""The rows of the decoding table: what translates, and what its output may be compared with."""

from typing import NamedTuple, Optional

import torch

from difformer_plugin.bench import subjects
from difformer_plugin.decoding.generator import DiffusionGenerator
from difformer_plugin.decoding.options import DecodingOptions
from difformer_plugin.decoding.settings import read_settings
from difformer_plugin.decoding.speedups import ENGINE, PLAIN, Means
from difformer_plugin.errors import UserError


class Row(NamedTuple):
    """How a diffusion model decodes.

    Attributes:
        help: what it is, for the table's legend.
        means: of the engine.
        precision: --decoding-precision.
        cast: the whole model in another precision, as --bf16 of fairseq-generate has it.
        exact: its output is to be that of the plain path.
        gpu: only there it makes sense.
    """

    help: str
    means: Means = ENGINE
    precision: Optional[str] = None
    cast: Optional[torch.dtype] = None
    exact: bool = False
    gpu: bool = False


def alone(name):
    """The engine with one of its means."""
    return PLAIN._replace(**{name: True})


ROWS = {
    "plain": Row("the plain path", PLAIN, exact=True),
    "share": Row(
        "keys and values of a source projected once, nothing else", alone("share"), exact=True
    ),
    "pack": Row("padding left out, nothing else", alone("pack"), exact=True),
    "chunk": Row("pieces that the caches hold, nothing else", alone("chunk"), exact=True),
    "count": Row("n-grams of MBR counted in tensors, nothing else", alone("count"), exact=True),
    "bf16": Row("the plain path with the whole model in bf16", PLAIN, cast=torch.bfloat16),
    "engine": Row("all of share, pack, chunk and count", exact=True),
    "engine-bf16": Row("the engine with --decoding-precision bf16", precision="bf16"),
    "engine-fp16": Row("the engine with --decoding-precision fp16", precision="fp16", gpu=True),
}
TUNED = "tuned"
FRAMES = {"transformer": 1}  # symbols around an output: EOS, and for the others BOS as well
YARDSTICKS = {
    "transformer": "fairseq's Transformer of the same size, beam 5",
    "cmlm": "fairseq's CMLM of the same size, 10 iterations, one length",
}
LIMIT, MBR = "limit", "mbr"
TABLES = {
    LIMIT: "operations of the engine over the rate of matrix products, for the largest batches",
    MBR: "choosing among made-up candidates, by sacrebleu's loop and in tensors",
}
NAMES = [*ROWS, TUNED, *YARDSTICKS, *TABLES]


def chosen_rows(wanted, device, settings):
    """The names of the rows, in their order here.

    Args:
        wanted: names, or None for all that make sense.
        settings: the file of --settings, or None.
    Raises:
        UserError: a row is not known, or cannot be.
    """
    if unknown := sorted(set(wanted or ()) - set(NAMES)):
        raise UserError(
            f"--rows: no such row as {', '.join(unknown)}; there are {', '.join(NAMES)}"
        )
    if TUNED in (wanted or ()) and not settings:
        raise UserError("the row tuned needs --settings FILE, which `difformer tune` writes")
    if settings:
        read_settings(settings)
    if wanted:
        if not (set(wanted) - set(TABLES)):
            raise UserError("--rows: give a row that translates, besides limit and mbr")
        return [name for name in NAMES if name in wanted]
    gpu = device.type == "cuda"
    return [
        name
        for name in NAMES
        if not (name == TUNED and not settings)
        and not (name in ROWS and ROWS[name].gpu and not gpu)
    ]


class Setting(NamedTuple):
    """What a block of the table is measured with."""

    steps: int
    beams: tuple  # b1, b2
    batch_size: int

    @property
    def title(self):
        """As a headline."""
        b1, b2 = self.beams
        return f"K = {self.steps}, b = {b1} x {b2}, batches of {self.batch_size}"

    def options(self, precision=None, steps=None):
        """DecodingOptions of it: of several candidates BLEU chooses."""
        b1, b2 = self.beams
        return DecodingOptions(
            decoding_steps=steps or self.steps,
            length_beam_size=b1,
            noise_beam_size=b2,
            bleu_mbr=b1 * b2 > 1,
            decoding_precision=precision,
        )


class Systems:
    """The models behind the rows, and their generators.

    Args:
        args: of the command.
        names: of the rows that are measured.
        device: of the models.
    """

    def __init__(self, args, names, device):
        self.seed, self.settings = args.seed, args.settings
        diffusion = subjects.diffusion(
            args.data, args.path, args.arch, args.model_options, args.seed
        )
        model = diffusion.model
        found = {model.cfg._name: diffusion}
        for name in ("transformer", "cmlm"):
            if name in names:
                make, path = getattr(subjects, name), getattr(args, name)
                found[name] = make(args.data, path, model, args.seed)
        self.subjects = {name: subject.load(args.subset, device) for name, subject in found.items()}
        self.diffusion = self.subjects[model.cfg._name]
        self.casts = {}

    def generator(self, name, setting, steps=None):
        """What translates in this row; a yardstick has its own.

        Args:
            steps: instead of the setting's, in a pass that only measures memory.
        """
        if name in YARDSTICKS:
            return self.subjects[name].generator
        if name == TUNED:
            options, means = DecodingOptions(**read_settings(self.settings)), ENGINE
        else:
            options, means = setting.options(ROWS[name].precision, steps), ROWS[name].means
        dictionary = self.diffusion.task.target_dictionary
        generator = DiffusionGenerator(dictionary, options, self.seed, means=means)
        generator.check_models([self.diffusion.model])
        return generator

    def subject(self, name):
        """The model of this row."""
        if name in YARDSTICKS:
            return self.subjects[name]
        dtype = ROWS[name].cast if name in ROWS else None
        if dtype is None:
            return self.diffusion
        if dtype not in self.casts:
            self.casts[dtype] = self.diffusion.cast(dtype)
        return self.casts[dtype]
