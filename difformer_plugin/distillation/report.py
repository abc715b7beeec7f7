"""The summary that `difformer distill` prints."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sacrebleu.metrics import BLEU

from difformer_plugin.distillation.choice import SCORE_UNIT
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
    own = "model" in manifest["setting"]
    kept, writer = ("present", "the new targets") if own else ("raw", "the teacher")
    lines = [
        f"{out}: finished before, nothing to do" if finished else f"{out}: {seconds:,.0f} s",
        f"lines     {tally['sentences']:,} translated; {tally['pairs']:,} pairs written, "
        f"{tally['raw']:,} of them {kept} ones added",
        *_choice(tally.get("choice"), tally["sentences"]),
        *_failures(tally, kept, out),
        f"speed     {total['tokens_per_second']:,.0f} target tokens/s ({tally['tokens']:,} in "
        f"{tally['seconds']:,.0f} s of decoding)",
        f"BLEU      {total['bleu']:.2f} of {writer} against the raw targets, tokenised "
        f"({total['signature']}); length ratio {total['length_ratio']:.3f}",
    ]
    if manifest.get("left_out"):
        lines.append(left_out(manifest))
    if total["bleu"] < LOW_BLEU and tally["sentences"]:
        lines.append(
            "warning: hardly a word is right; was the teacher trained with these dict.*.txt?"
        )
    return "\n".join(lines)


def left_out(manifest: Mapping[str, Any]) -> str:
    """A line about the splits that stay as they are, although training adds them."""
    split, others = manifest["setting"]["split"], ", ".join(manifest["left_out"])
    return (
        f"left raw  {others}: not distilled, but fairseq-train adds what is there to {split}; "
        "--all-train-splits distils all"
    )


def _choice(sums: Mapping[str, int] | None, sentences: int) -> list[str]:
    """How many targets the choice changed, and mean scores before and after."""
    if not sums:  # the likeliest hypothesis
        return []

    def mean(name: str) -> float:
        return sums[name] * SCORE_UNIT / max(sentences, 1)

    if "present_bleu" not in sums:
        return [
            f"choice    {sums['changed']:,} lines changed from the likeliest hypothesis; mean "
            f"sentence BLEU {mean('likeliest_bleu'):.2f} before, {mean('chosen_bleu'):.2f} after"
        ]
    return [
        f"choice    {sums['changed']:,} targets replaced; {sums['candidates']:,} candidates, "
        f"{sums['failed_candidates']:,} of them failures",
        f"          mean sentence BLEU {mean('present_bleu'):.2f} before, "
        f"{mean('chosen_bleu'):.2f} after; teacher's log-probability per token "
        f"{mean('present_log_prob'):.3f} before, {mean('chosen_log_prob'):.3f} after",
    ]


def _failures(tally: Mapping[str, Any], kept: str, out: Path) -> list[str]:
    """The number of failures, and their causes and outcomes if there are any."""
    causes = sorted(tally["failures"].items())
    failed = sum(count for _, count in causes)
    if not failed:
        return ["failures  0"]
    counts = ", ".join(f"{count:,} {cause}" for cause, count in causes)
    stay = failed - tally["replaced"] - tally["dropped"]
    return [
        f"failures  {failed:,} ({counts}), listed in {out / FAILURES}",
        f"          {stay:,} with the {kept} target, {tally['replaced']:,} with the next "
        f"hypothesis, {tally['dropped']:,} dropped",
    ]
