"""Time raw text that is translated a line at a time, as someone at a keyboard waits for it."""

import logging
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

from difformer_plugin.bench.measurement import throughput
from difformer_plugin.data.pipeline import TextCodec
from difformer_plugin.decoding.options import DecodingOptions
from difformer_plugin.decoding.settings import OPTIONS
from difformer_plugin.translation.settings import Settings
from difformer_plugin.translation.translator import Translator

logger = logging.getLogger(__name__)


def measure(
    args: Namespace, name: str, options: DecodingOptions, sources: Sequence[str]
) -> dict[str, Any]:
    """Translate lines one by one, with tokenising, decoding and detokenising.

    Args:
        args: of `difformer bench decode`, with --path and a data-bin that has a pipeline.
        name: of the row.
        options: of decoding.
        sources: at least two sentences as subwords, separated by blanks.
    Returns:
        a dictionary: `name`, `load_seconds` (until the model is ready), `first_ms` (the first line,
        which also pays for what is set up on demand), and those of `measurement.throughput`, of
        the lines after the first.
    """
    settings = Settings(
        model=Path(args.path),
        data=Path(args.data),
        decoding={option: getattr(options, option) for option in OPTIONS},
        seed=args.seed,
        cpu=args.cpu,
    )
    begin = perf_counter()
    translator = Translator(settings, batch_size=1, warn=logger.warning)
    load_seconds = perf_counter() - begin
    codec = translator.loaded.codec
    source_side = replace(codec.pipeline, target_lang=codec.pipeline.source_lang)
    lines = [TextCodec(source_side, codec.file).decode(source) for source in sources]
    times, tokens = [], []
    for number, line in enumerate(lines, 1):
        begin = perf_counter()
        [[(_, translation)]] = translator([(number, line)])
        times.append(perf_counter() - begin)
        tokens.append(len(codec.encode_target(translation).split()))
    rest = [times[1:]]
    return {
        "name": name,
        "load_seconds": load_seconds,
        "first_ms": 1000 * times[0],
        **throughput(rest, rest, len(times) - 1, sum(tokens[1:])),
    }
