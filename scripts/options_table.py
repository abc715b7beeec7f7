"""Regenerate the tables of options in docs/options.md from the help texts in the code.

python scripts/options_table.py            # rewrites docs/options.md
python scripts/options_table.py --check    # exit status 1 if it is out of date
"""

import sys
from dataclasses import fields
from pathlib import Path

from difformer_plugin import register

PAGE = Path(__file__).resolve().parent.parent / "docs" / "options.md"


def configurations():
    """Marker -> the configuration to list, and one whose options are listed elsewhere (or None)."""
    register()
    from difformer_plugin.decoding.options import DecodingOptions
    from difformer_plugin.families.embeddings.config import DifformerConfig
    from difformer_plugin.families.embeddings.objective import DifformerLossConfig
    from difformer_plugin.families.insertion.config import InsertionDiffusionConfig
    from difformer_plugin.families.insertion.objective import InsertionDiffusionLossConfig
    from difformer_plugin.families.tokens.config import DiscreteDiffusionConfig
    from difformer_plugin.families.tokens.objective import DiscreteDiffusionLossConfig
    from difformer_plugin.networks.config import NetworkConfig

    return {
        "network": (NetworkConfig, None),
        "difformer": (DifformerConfig, NetworkConfig),
        "difformer_loss": (DifformerLossConfig, None),
        "discrete_diffusion": (DiscreteDiffusionConfig, NetworkConfig),
        "discrete_diffusion_loss": (DiscreteDiffusionLossConfig, None),
        "insertion_diffusion": (InsertionDiffusionConfig, NetworkConfig),
        "insertion_diffusion_loss": (InsertionDiffusionLossConfig, None),
        "decoding": (DecodingOptions, None),
    }


def table(configuration, listed_elsewhere):
    """A Markdown table with a row for each field that has a help text and is not in the other."""
    lines = ["| Option | Default | Effect |", "|---|---|---|"]
    other = fields(listed_elsewhere) if listed_elsewhere else ()
    common = {(field.name, field.default) for field in other}
    for field in fields(configuration):
        if "help" in field.metadata and (field.name, field.default) not in common:
            flag = field.default is False or field.default is None
            default = "" if flag else f"`{field.default}`"
            help_text = field.metadata["help"].replace("|", "\\|")
            lines.append(f"| `--{field.name.replace('_', '-')}` | {default} | {help_text} |")
    return "\n".join(lines)


def rewritten(text):
    """The page with each table between its markers replaced."""
    for name, (configuration, listed_elsewhere) in configurations().items():
        begin, end = f"<!-- options: {name} -->", "<!-- end -->"
        before, rest = text.split(begin)
        after = rest.split(end, 1)[1]
        text = f"{before}{begin}\n{table(configuration, listed_elsewhere)}\n{end}{after}"
    return text


def main():
    """Rewrite or check the page."""
    text = PAGE.read_text(encoding="utf-8")
    if "--check" in sys.argv[1:]:
        return 0 if rewritten(text) == text else 1
    PAGE.write_text(rewritten(text), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
