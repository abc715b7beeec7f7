"""Regenerate the tables of options in docs/options.md and docs/fairseq-options.md from the code.

python scripts/options_table.py            # rewrites both pages
python scripts/options_table.py --check    # exit status 1 if it is out of date
"""

import sys
from dataclasses import fields
from pathlib import Path

from difformer_plugin import register

DOCS = Path(__file__).resolve().parent.parent / "docs"
END = "<!-- end -->"


def configurations():
    """Marker -> the configuration to list, and one whose options are listed elsewhere (or None)."""
    register()
    from fairseq.tasks.translation import TranslationConfig

    from difformer_plugin.families.embeddings.config import DifformerConfig
    from difformer_plugin.families.embeddings.objective import DifformerLossConfig
    from difformer_plugin.families.insertion.config import InsertionDiffusionConfig
    from difformer_plugin.families.insertion.objective import InsertionDiffusionLossConfig
    from difformer_plugin.families.joint.config import JointDiffusionConfig
    from difformer_plugin.families.joint.objective import JointDiffusionLossConfig
    from difformer_plugin.families.tokens.config import DiscreteDiffusionConfig
    from difformer_plugin.families.tokens.objective import DiscreteDiffusionLossConfig
    from difformer_plugin.networks.config import NetworkConfig
    from difformer_plugin.tasks.diffusion_translation import DiffusionTranslationConfig

    return {
        "network": (NetworkConfig, None),
        "difformer": (DifformerConfig, NetworkConfig),
        "difformer_loss": (DifformerLossConfig, None),
        "discrete_diffusion": (DiscreteDiffusionConfig, NetworkConfig),
        "discrete_diffusion_loss": (DiscreteDiffusionLossConfig, None),
        "insertion_diffusion": (InsertionDiffusionConfig, NetworkConfig),
        "insertion_diffusion_loss": (InsertionDiffusionLossConfig, None),
        "joint_diffusion": (JointDiffusionConfig, DifformerConfig),
        "joint_diffusion_loss": (JointDiffusionLossConfig, DifformerLossConfig),
        "decoding": (DiffusionTranslationConfig, TranslationConfig),
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


def fairseq_table(verdict):
    """A Markdown table of those of fairseq's own options that are refused or without effect."""
    from difformer_plugin.tasks.fairseq_options import COMMANDS, RULES

    rows = {}
    for rule in RULES:
        if rule.verdict is verdict:
            key = rule.reason, tuple(c for c in COMMANDS if c in rule.commands)
            rows.setdefault(key, []).extend(rule.options)
    lines = ["| Options | In `fairseq-` | Why, or what instead |", "|---|---|---|"]
    for (reason, commands), names in rows.items():
        flags = " ".join(f"`--{name.replace('_', '-')}`" for name in names)
        lines.append(f"| {flags} | {', '.join(commands)} | {reason} |")
    return "\n".join(lines)


def pages():
    """Page -> its tables by their markers."""
    own = {name: table(*pair) for name, pair in configurations().items()}
    from difformer_plugin.tasks.fairseq_options import Verdict

    others = {"refused": Verdict.REFUSED, "no effect": Verdict.NO_EFFECT}
    foreign = {name: fairseq_table(verdict) for name, verdict in others.items()}
    return {DOCS / "options.md": own, DOCS / "fairseq-options.md": foreign}


def rewritten(text, tables):
    """A page with each table between its markers replaced."""
    for name, rows in tables.items():
        begin = f"<!-- options: {name} -->"
        before, rest = text.split(begin)
        after = rest.split(END, 1)[1]
        text = f"{before}{begin}\n{rows}\n{END}{after}"
    return text


def main():
    """Rewrite or check the pages."""
    check, differ = "--check" in sys.argv[1:], False
    for page, tables in pages().items():
        old = page.read_text(encoding="utf-8")
        new = rewritten(old, tables)
        differ |= old != new
        if not check:
            page.write_text(new, encoding="utf-8")
    return int(check and differ)


if __name__ == "__main__":
    sys.exit(main())
