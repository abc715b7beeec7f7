"""The summary that `difformer distill` prints."""

from pathlib import Path
from typing import Any

from sacrebleu.metrics import BLEU

from difformer_plugin.distillation.choice import BLEU_UNIT
from difformer_plugin.distillation.distilled_data_bin import FAILURES
from difformer_plugin.distillation.tally import Tally

# A teacher whose dictionary has the right size but another order scores less than this.
LOW_BLEU = 1.0


def summary(manifest: dict[str, Any]) -> dict[str, Any]:
    """BLEU and its signature, length ratio and speed, from the tally of a manifest."""
    tally = Tally()
    tally.add(manifest["tally"])
    metric = BLEU(tokenize="none", force=True)
    metric.corpus_score(["a"], [["a"]])  # it has no signature before it has scored something
    return {
        "bleu": tally.score().score,
        "signature": str(metric.get_signature()),
        "length_ratio": tally.bleu[8] / max(tally.bleu[9], 1),
        "tokens_per_second": tally.tokens / max(tally.seconds, 1e-9),
    }


def render(out: Path, manifest: dict[str, Any], finished: bool, seconds: float) -> str:
    """The summary as text.

    Args:
        out: the data-bin.
        manifest: its manifest.
        finished: whether an earlier run had done the work.
        seconds: time that this run took.
    """
    tally, total = manifest["tally"], summary(manifest)
    causes = sorted(tally["failures"].items())
    failed = sum(count for _, count in causes)
    kept = failed - tally["replaced"] - tally["dropped"]
    lines = [
        f"{out}: finished before, nothing to do" if finished else f"{out}: {seconds:,.0f} s",
        f"lines     {tally['sentences']:,} translated; {tally['pairs']:,} pairs written, "
        f"{tally['raw']:,} of them raw ones added",
        f"failures  {failed:,}",
        f"speed     {total['tokens_per_second']:,.0f} target tokens/s ({tally['tokens']:,} in "
        f"{tally['seconds']:,.0f} s of decoding)",
        f"BLEU      {total['bleu']:.2f} of the teacher against the raw targets, tokenised "
        f"({total['signature']}); length ratio {total['length_ratio']:.3f}",
    ]
    if failed:
        counts = ", ".join(f"{count:,} {cause}" for cause, count in causes)
        lines[2] += (
            f" ({counts}), listed in {out / FAILURES}\n"
            f"          {kept:,} with the raw target, {tally['replaced']:,} with the next "
            f"hypothesis, {tally['dropped']:,} dropped"
        )
    if choice := tally.get("choice"):
        means = [
            choice[f"{which}_bleu"] * BLEU_UNIT / max(tally["sentences"], 1)
            for which in ("likeliest", "chosen")
        ]
        lines.insert(
            2,
            f"choice    {choice['changed']:,} lines changed from the likeliest hypothesis; mean "
            f"sentence BLEU {means[0]:.2f} before, {means[1]:.2f} after",
        )
    if total["bleu"] < LOW_BLEU and tally["sentences"]:
        lines.append(
            "warning: hardly a word is right; was the teacher trained with these dict.*.txt?"
        )
    return "\n".join(lines)
