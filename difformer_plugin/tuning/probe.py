"""The probe of Fig. 2a: what a denoiser predicts from pure noise when it is told a time step.

The predictions of a degenerated model follow the noise, so that their BLEU is low.
"""

from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from fairseq import checkpoint_utils
from fairseq.data import Dictionary
from fairseq.tasks import FairseqTask
from sacrebleu.metrics import BLEU

from difformer_plugin.data.batches import load_batches
from difformer_plugin.decoding.generator import DiffusionGenerator
from difformer_plugin.decoding.options import DecodingOptions
from difformer_plugin.decoding.text import to_text
from difformer_plugin.errors import UserError
from difformer_plugin.families.contract import Family, is_diffusion_model


def load(args: Namespace, path: str) -> tuple[Family, FairseqTask, list[dict[str, Any]]]:
    """Load a checkpoint and the split that it is probed on.

    Args:
        args: of `difformer probe`: `data`, `gen_subset`, `batch_size`, `points`, `cpu`.
        path: the checkpoint.
    Returns:
        the model, its task, and batches of the split on the model's device.
    Raises:
        UserError: the model does not diffuse embeddings, or has fewer steps than `points`.
    """
    models, _, task = checkpoint_utils.load_model_ensemble_and_task(
        [path], arg_overrides={"data": args.data}
    )
    model = models[0]
    if not (is_diffusion_model(models[0]) and models[0].diffuses_embeddings):
        raise UserError(
            f"{path} is a {type(model).__name__}, which does not diffuse embeddings: leave it out, "
            "since the probe feeds Gaussian noise"
        )
    if args.points > model.diffusion_steps:
        raise UserError(f"--points: the model of {path} has only {model.diffusion_steps} steps")
    device = torch.device("cuda" if torch.cuda.is_available() and not args.cpu else "cpu")
    batches = load_batches(
        task, args.data, args.gen_subset, args.batch_size, model.max_positions(), device
    )
    return model.to(device).eval(), task, batches


def translate_noise(
    model: Family,
    dictionary: Dictionary,
    batches: Iterable[dict[str, Any]],
    time: float,
    seed: int,
) -> Iterator[tuple[int, torch.Tensor]]:
    """Predict each target once, from pure noise, at the time `time`.

    The length is the most likely one; the noise is that of decoding, with variance 1.

    Args:
        dictionary: of the target.
        batches: fairseq's samples.
        time: t / T in [0, 1), which the denoiser is told.
        seed: of the noise.
    Yields:
        the index of the sentence in its data set, and its tokens with BOS and EOS.
    """
    options = DecodingOptions(decoding_steps=1, decoding_fixed_t=time)
    generator = DiffusionGenerator(dictionary, options, seed)
    for sample in batches:
        for index, (best, *_) in zip(sample["id"].tolist(), generator.generate([model], sample)):
            yield index, best["tokens"]


def bleu_by_time(
    model: Family,
    dictionary: Dictionary,
    batches: list[dict[str, Any]],
    times: Sequence[float],
    seed: int = 1,
    post_process: str = "@@ ",
    progress: Callable[[Iterable], Iterable] = iter,
) -> tuple[list[float], str]:
    """BLEU of `translate_noise` at each of several times, on tokenised text.

    Args:
        dictionary: of the target.
        batches: fairseq's samples, with targets.
        times: t / T in [0, 1).
        post_process: how subwords are joined, a value of fairseq's --post-process.
        progress: wraps the iteration over the times, as tqdm does.
    Returns:
        the scores, and sacreBLEU's signature.
    """
    metric = BLEU(tokenize="none", force=True)
    references = {
        index: to_text(dictionary, tokens, post_process, escape_unk=True)
        for sample in batches
        for index, tokens in zip(sample["id"].tolist(), sample["target"])
    }
    scores = []
    for time in progress(times):
        predicted = dict(translate_noise(model, dictionary, batches, time, seed))
        hypotheses = [to_text(dictionary, predicted[index], post_process) for index in references]
        scores.append(metric.corpus_score(hypotheses, [list(references.values())]).score)
    return scores, str(metric.get_signature())


def render(times: Sequence[float], curves: dict[str, list[float]], signature: str) -> str:
    """BLEU by time as a table, with a column for each checkpoint."""
    lines = [f"[{i + 1}] {path}" for i, path in enumerate(curves)]
    lines.append("t / T  " + "".join(f"{f'[{i + 1}]':>7}" for i in range(len(curves))))
    for i, time in enumerate(times):
        lines.append(f"{time:5.3f}  " + "".join(f"{bleu[i]:7.2f}" for bleu in curves.values()))
    mean = "".join(f"{sum(bleu) / len(bleu):7.2f}" for bleu in curves.values())
    return "\n".join([*lines, f"mean   {mean}", f"BLEU, {signature}"])


def plot(path: Path, times: Sequence[float], curves: dict[str, list[float]]) -> None:
    """Plot BLEU by time (Fig. 2a) to a file."""
    from difformer_plugin.evaluation.plots import save_panels

    panel = {
        "title": "BLEU from pure noise",
        "x_label": "t / T that the denoiser is told",
        "y_label": "BLEU",
        "lines": {name: (times, bleu) for name, bleu in curves.items()},
    }
    save_panels(path, [panel])
