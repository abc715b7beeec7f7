"""Models to measure, from checkpoints or with random weights, each with a split as it reads it."""

import contextlib
import copy
import io

import torch
from fairseq import options, tasks, utils
from fairseq.dataclass.configs import GenerationConfig
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.iterative_refinement_generator import IterativeRefinementGenerator
from fairseq.models import ARCH_MODEL_NAME_REGISTRY, ARCH_MODEL_REGISTRY
from fairseq.sequence_generator import SequenceGenerator

from difformer_plugin.bench.lengths import (
    ReferenceLengths,
    References,
    ReferenceSearch,
    aim_at_references,
)
from difformer_plugin.data.data_bin import check_folder
from difformer_plugin.distillation.teacher import Teacher
from difformer_plugin.errors import UserError
from difformer_plugin.families.base import DiffusionModel

DIFFUSION = """
    --task diffusion_translation --pred-length-offset --encoder-learned-pos --decoder-learned-pos
"""
OWN = {  # options of a registered model, beyond its defaults
    "difformer": """
        --noise-schedule sqrt --rescaling-factor 4 --self-cond --rescale-timesteps --embed-norm
        --embed-norm-affine
    """,  # of the paper's models (Table 21)
}
TRANSFORMER = """
    --task translation --arch transformer
    --criterion label_smoothed_cross_entropy --label-smoothing 0.1
"""
CMLM = """
    --task translation_lev --arch cmlm_transformer --criterion nat_loss
    --encoder-learned-pos --decoder-learned-pos
"""
BEAM_SEARCH = {"beam": 5}
MASK_PREDICT = {"iter_decode_max_iter": 9, "iter_decode_force_max_iter": True}  # from 0 on


class Subject:
    """A model with its task, and a split of the data-bin as its task frames it.

    Args:
        model: a fairseq model.
        task: of that model, or None where only the model is wanted.
        trained: whether its weights are a checkpoint's.
        generator: with which it translates; None for a diffusion model, which has many.
    """

    def __init__(self, model, task, trained, generator=None):
        self.model, self.task, self.trained = model, task, trained
        self.generator, self.references = generator, None

    def load(self, subset, device):
        """Load the split; after this, random weights are given the lengths of its references."""
        self.model.to(device).eval()
        self.device, self.samples = device, {}
        self.task.load_dataset(subset)
        self.dataset = self.task.dataset(subset)
        if self.dataset.tgt is None:
            raise UserError(f"{subset} has no targets, whose lengths and tokens are needed")
        if not self.trained:
            self.references = References(reference_lengths(self).to(device))
            self._aim()
        return self

    def _aim(self):
        if isinstance(self.model, DiffusionModel):
            if self.predicts_length:
                self.model.length_predictor = ReferenceLengths(self.references)
        elif isinstance(self.generator, SequenceGenerator):
            self.generator.search = ReferenceSearch(self.task.target_dictionary, self.references)
        else:
            aim_at_references(self.model.decoder, self.references)

    def sample(self, numbers):
        """The batch of these sentences, on the device; made once."""
        key = tuple(numbers.tolist())
        if key not in self.samples:
            sample = self.dataset.collater([self.dataset[i] for i in key])
            self.samples[key] = utils.apply_to_sample(lambda x: x.to(self.device), sample)
        return self.samples[key]

    @torch.no_grad()
    def translate(self, sample, generator=None):
        """Hypotheses of each sentence of a batch, the best first."""
        if self.references:
            self.references.aim(sample["id"])
        return (generator or self.generator).generate([self.model], sample)

    def cast(self, dtype):
        """The same with a copy of the model in another precision."""
        other = copy.copy(self)
        other.model = copy.deepcopy(self.model).to(dtype)
        if other.references:
            other._aim()
        return other

    @property
    def predicts_length(self):
        """Whether a diffusion model has a length before it has tokens."""
        return self.model.length_predictor is not None

    @property
    def weights(self):
        """Where they come from, in words."""
        if self.trained:
            return "a checkpoint"
        if isinstance(self.model, DiffusionModel) and not self.predicts_length:
            return "random weights, whose outputs are as long as it happens"
        return "random weights, lengths of the references"

    @property
    def parameters(self):
        """How many numbers its weights are."""
        return sum(parameter.numel() for parameter in self.model.parameters())


def reference_lengths(subject):
    """Subwords of all references of the split, int64 (N,), without what frames them."""
    dictionary = subject.task.target_dictionary
    frame = torch.tensor([dictionary.bos(), dictionary.eos(), dictionary.pad()])
    return torch.tensor([int((~torch.isin(t.long(), frame)).sum()) for t in subject.dataset.tgt])


def configure(data, *arguments):
    """fairseq's configuration for these options of fairseq-train.

    Raises:
        UserError: there is no such option, or it has no such value.
    """
    arguments = [str(data), *(word for text in arguments for word in text.split())]
    parser, said = options.get_training_parser(), io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            parsed = options.parse_args_and_arch(parser, arguments)
    except SystemExit:  # all else that it parses is our own
        reason = said.getvalue().rpartition("error: ")[2].strip()
        raise UserError(f"--model-options: {reason}; give options of fairseq-train") from None
    return convert_namespace_to_omegaconf(parsed)


def share_embeddings(cfg, task):
    """Tie the embeddings as far as the dictionaries allow, in a model's configuration."""
    joined = task.source_dictionary == task.target_dictionary
    cfg.share_all_embeddings = joined
    cfg.share_decoder_input_output_embed = True


def random_model(data, seed, *arguments):
    """A model with random weights: its configuration, task and itself."""
    cfg = configure(data, *arguments)
    check_folder(str(data), cfg.task.source_lang, cfg.task.target_lang)
    task = tasks.setup_task(cfg.task)
    share_embeddings(cfg.model, task)
    torch.manual_seed(seed)
    return cfg, task, task.build_model(cfg.model)


def training(arch, model_options):
    """The options of fairseq-train for a diffusion model of a named size.

    Args:
        model_options: more of them, of the user.
    Raises:
        UserError: there is no such size.
    """
    known = [name for name, kind in ARCH_MODEL_REGISTRY.items() if issubclass(kind, DiffusionModel)]
    if arch not in known:
        raise UserError(f"--arch {arch}: no such diffusion model; there are {', '.join(known)}")
    model, criterion = ARCH_MODEL_NAME_REGISTRY[arch], ARCH_MODEL_REGISTRY[arch].criterion
    own = f"--arch {arch} --criterion {criterion} {OWN.get(model, '')}"
    return f"{DIFFUSION} {own} {model_options or ''}"


def size_of(model):
    """Options that give one of fairseq's Transformers the size of a diffusion model."""
    cfg = model.cfg
    sizes = [f"--activation-fn {cfg.activation_fn}"]
    for side in ("encoder", "decoder"):
        sizes += [
            f"--{side}-embed-dim {cfg.model_dim}",
            f"--{side}-layers {cfg[f'{side}_layers']}",
            f"--{side}-ffn-embed-dim {cfg[f'{side}_ffn_embed_dim']}",
            f"--{side}-attention-heads {cfg[f'{side}_attention_heads']}",
        ]
        sizes += [f"--{side}-normalize-before"] * cfg[f"{side}_normalize_before"]
    return " ".join(sizes)


def diffusion(data, path, arch, model_options, seed):
    """The diffusion model of a checkpoint, or a random one of a named size."""
    if path:
        if model_options:
            raise UserError("--model-options are of random weights: leave them out with --path")
        loaded = Teacher([path], data, {})
        if not isinstance(loaded.models[0], DiffusionModel):
            kind = type(loaded.models[0]).__name__
            raise UserError(f"--path {path} is a {kind}: give a diffusion model's checkpoint")
        return Subject(loaded.models[0], loaded.task, True)
    _, task, model = random_model(data, seed, training(arch, model_options))
    return Subject(model, task, False)


def transformer(data, path, like, seed):
    """fairseq's Transformer with beam search, of a checkpoint or a random one of the same size."""
    return _yardstick("--transformer", data, path, like, seed, TRANSFORMER, BEAM_SEARCH)


def cmlm(data, path, like, seed):
    """fairseq's CMLM with 10 iterations, of a checkpoint or a random one of the same size."""
    return _yardstick("--cmlm", data, path, like, seed, CMLM, MASK_PREDICT)


def _yardstick(option, data, path, like, seed, arguments, search):
    wanted = SequenceGenerator if option == "--transformer" else IterativeRefinementGenerator
    if path:
        loaded = Teacher([path], data, search)
        if not isinstance(loaded.generator, wanted):
            kind = type(loaded.models[0]).__name__
            raise UserError(f"{option} {path} is a {kind}, which does not translate in this way")
        return Subject(loaded.models[0], loaded.task, True, loaded.generator)
    cfg, task, model = random_model(data, seed, arguments, size_of(like))
    model.prepare_for_inference_(cfg)
    generator = task.build_generator([model], GenerationConfig(**search))
    return Subject(model, task, False, generator)
