"""Write the README's tables of options anew, from the configurations' own help texts.

python scripts/options_table.py            # rewrites README.md
python scripts/options_table.py --check    # exit status 1 if it is out of date
"""

import sys
from dataclasses import fields
from pathlib import Path

from difformer_plugin import register

README = Path(__file__).resolve().parent.parent / "README.md"


def configurations():
    """The configuration behind each marker in the README, and one whose options it leaves out."""
    register()
    from difformer_plugin.criterions.difformer_loss import DifformerLossConfig
    from difformer_plugin.criterions.discrete_diffusion_loss import DiscreteDiffusionLossConfig
    from difformer_plugin.decoding.options import DecodingOptions
    from difformer_plugin.models.config import DifformerConfig, NetworkConfig
    from difformer_plugin.models.discrete_config import DiscreteDiffusionConfig

    return {
        "network": (NetworkConfig, None),
        "difformer": (DifformerConfig, NetworkConfig),
        "difformer_loss": (DifformerLossConfig, None),
        "discrete_diffusion": (DiscreteDiffusionConfig, NetworkConfig),
        "discrete_diffusion_loss": (DiscreteDiffusionLossConfig, None),
        "decoding": (DecodingOptions, None),
    }


def table(configuration, known):
    """A Markdown table, a row a field that has a help text and is not one of `known`'s."""
    lines = ["| option | default | what it does |", "|---|---|---|"]
    common = {(field.name, field.default) for field in fields(known)} if known else set()
    for field in fields(configuration):
        if "help" in field.metadata and (field.name, field.default) not in common:
            flag = field.default is False or field.default is None
            default = "" if flag else f"`{field.default}`"
            help_text = field.metadata["help"].replace("|", "\\|")
            lines.append(f"| `--{field.name.replace('_', '-')}` | {default} | {help_text} |")
    return "\n".join(lines)


def rewritten(text):
    """The README with each table between its markers replaced."""
    for name, (configuration, known) in configurations().items():
        begin, end = f"<!-- options: {name} -->", "<!-- end -->"
        before, rest = text.split(begin)
        after = rest.split(end, 1)[1]
        text = f"{before}{begin}\n{table(configuration, known)}\n{end}{after}"
    return text


def main():
    """Rewrite or check README.md."""
    text = README.read_text(encoding="utf-8")
    if "--check" in sys.argv[1:]:
        return 0 if rewritten(text) == text else 1
    README.write_text(rewritten(text), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
