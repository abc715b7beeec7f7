"""The results of `difformer evaluate` as text tables."""

from collections.abc import Mapping
from typing import Any

from difformer_plugin.evaluation.metrics import SIGNIFICANCE_LEVEL

WIDTH = 30  # of the first column, in characters


def render(result: Mapping[str, Any]) -> str:
    """All results of `results.evaluate` as tables."""
    names = ("system", "baseline")
    lines = [f"{role:<12}{name}" for role, name in zip(names, result["systems"])]
    lines += [f"{'model':<12}{model}" for model in result["models"] if model]
    lines.append(f"{'sentences':<12}{result['sentences']}")
    lines += [f"{'note':<12}{note}" for note in result["notes"]]
    lines += ["", *_metrics(result), *_diversity(result)]
    if result["bleu_by_length"]:
        lines += ["", *_lengths(result)]
    lines += ["", *_length_errors(result)]
    for name, curve in zip(names, result["bleu_by_step"]):
        if curve:
            lines += ["", *_steps(name, curve)]
    lines += ["", "signatures"]
    lines += [f"  {row['label']:<{WIDTH - 2}}{row['signature']}" for row in result["metrics"]]
    return "\n".join(lines)


def _columns(values, form="{:10.2f}"):
    return "".join(form.format(value) for value in values)


def _header(title, result):
    return f"{title:<{WIDTH}}" + _columns(
        ("system", "baseline")[: len(result["systems"])], "{:>10}"
    )


def _metrics(result):
    two = len(result["systems"]) > 1
    title = _header("metric", result)
    yield title + ("{:>10}{:>8}  {}".format("diff.", "p", "better") if two else "")
    for row in result["metrics"]:
        line = f"{row['label']:<{WIDTH}}{_columns(row['scores'])}"
        if two:
            line += f"{row['scores'][0] - row['scores'][1]:+10.2f}"
            line += f"{row['p_value']:8.3f}" if "p_value" in row else " " * 8
            line += f"  {row['better']}"
        elif "intervals" in row:
            low, high = row["intervals"][0]
            line += f"   95 %: {low:.2f} to {high:.2f}"
        yield line
    for missing in result["missing"]:
        yield f"{missing['label']:<{WIDTH}}{missing['reason']}"


def _diversity(result):
    """div-4, self-BLEU and the oracle's BLEU; a dash for a system with one sample a source."""
    found = result["diversity"]
    if not any(found):
        return
    yield ""
    yield _header("several samples per source", result)
    rows = [
        ("samples", "samples", "{:10d}"),
        ("div-4 (0 to 1)", "div_4", "{:10.3f}"),
        ("self-BLEU", "self_bleu", "{:10.2f}"),
        ("BLEU, tok., of the best sample", "oracle_bleu", "{:10.2f}"),
    ]
    for label, key, form in rows:
        cells = [form.format(own[key]) if own else f"{'-':>10}" for own in found]
        yield f"{label:<{WIDTH}}" + "".join(cells)


def _lengths(result):
    yield _header("BLEU, tok., by source words", result) + f"{'sentences':>12}"
    for bucket in result["bleu_by_length"]:
        span = span_of(bucket)
        yield f"  {span:<{WIDTH - 2}}{_columns(bucket['bleu'])}{bucket['sentences']:12d}"
    if fit := result["regression"]:
        yield ""
        yield "relative difference of sentence BLEU, (a - b) / max(a, b), by source words"
        yield f"  slope {fit['slope']:+.5f} per word, intercept {fit['intercept']:+.4f}"
        yield f"  {slope_test(fit)}"


def span_of(bucket: Mapping[str, Any]) -> str:
    """The lengths of a bucket: `6-9`, or `6` if they are all equal."""
    low, high = bucket["shortest"], bucket["longest"]
    return str(low) if low == high else f"{low}-{high}"


def slope_test(fit: Mapping[str, Any]) -> str:
    """The result of the t-test of a slope, in words; see `comparison.regression`."""
    if fit["t"] is None:
        return "the line fits exactly, so its slope cannot be tested"
    test = f"t = {fit['t']:.2f}, {fit['degrees_of_freedom']} degrees of freedom, "
    test += f"p = {fit['p_value']:.2g}"
    if fit["p_value"] >= SIGNIFICANCE_LEVEL:
        return f"{test}: the slope does not differ significantly from 0"
    better = "system" if fit["slope"] > 0 else "baseline"
    return f"{test}: the {better} does relatively better on longer sources"


def _length_errors(result):
    yield _header("length, in tokens", result)
    errors = result["length_errors"]
    yield f"{'  mean error':<{WIDTH}}" + _columns([own["mean"] for own in errors], "{:+10.2f}")
    exact = [100 * own["exact"] for own in errors]
    yield f"{'  exact, % of sentences':<{WIDTH}}" + _columns(exact, "{:10.1f}")


def _steps(name, curve):
    yield f"BLEU, tok., by step of the {name}"
    for start in range(0, len(curve), 10):
        cells = "".join(f"{bleu:7.2f}" for bleu in curve[start : start + 10])
        yield f"  {start + 1:>3}-{min(start + 10, len(curve)):<4}{cells}"
