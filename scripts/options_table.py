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
    """The configuration behind each marker in the README."""
    register()
    from difformer_plugin.criterions.difformer_loss import DifformerLossConfig
    from difformer_plugin.decoding.options import DecodingOptions
    from difformer_plugin.models.config import DifformerConfig

    return {"model": DifformerConfig, "criterion": DifformerLossConfig, "decoding": DecodingOptions}


def table(configuration):
    """A Markdown table, a row a field that has a help text."""
    lines = ["| option | default | what it does |", "|---|---|---|"]
    for field in fields(configuration):
        if "help" in field.metadata:
            flag = field.default is False or field.default is None
            default = "" if flag else f"`{field.default}`"
            help_text = field.metadata["help"].replace("|", "\\|")
            lines.append(f"| `--{field.name.replace('_', '-')}` | {default} | {help_text} |")
    return "\n".join(lines)


def rewritten(text):
    """The README with each table between its markers replaced."""
    for name, configuration in configurations().items():
        begin, end = f"<!-- options: {name} -->", "<!-- end -->"
        before, rest = text.split(begin)
        after = rest.split(end, 1)[1]
        text = f"{before}{begin}\n{table(configuration)}\n{end}{after}"
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
