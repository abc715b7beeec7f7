"""Every command, option, name and link of the README and of docs/ exists."""

import ast
import functools
import os
import pkgutil
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from documents import PAGES, REPOSITORY, blocks, commands
from fairseq import options

import difformer_plugin
from difformer_plugin.cli.main import build_parser
from difformer_plugin.options import flag

EVERY = [(page, command) for page, text in PAGES.items() for command in commands(text)]
FAIRSEQ = {
    "fairseq-train": options.get_training_parser,
    "fairseq-generate": options.get_generation_parser,
    "fairseq-validate": options.get_validation_parser,
    "fairseq-interactive": options.get_interactive_generation_parser,
}
# what a block may hold, by its language; text is what a command printed
LANGUAGES = {"bash", "python", "text", "toml", "bibtex"}
# programs that are neither run nor parsed here, and why
EXCUSED = {
    "pip": "tests/integration/test_installation.py installs a copy without the network",
    "fairseq-hydra-train": "tests/integration/test_documents.py runs both configurations",
}


def parsed_by_fairseq(program, arguments):
    """The arguments as fairseq understands them; it exits where it does not."""
    difformer_plugin.register()
    if program == "fairseq-preprocess":
        return options.get_preprocessing_parser().parse_args(arguments)
    return options.parse_args_and_arch(FAIRSEQ[program](), arguments)


@pytest.mark.parametrize("page", PAGES)
def test_all_code_is_in_blocks_of_a_known_language(page):
    """So that no command hides in an indented block, or in one without a language."""
    text = PAGES[page]
    assert {language for language, _ in blocks(text)} <= LANGUAGES
    outside = "".join(re.split(r"^```[^\n]*\n.*?^```$", text, flags=re.MULTILINE | re.DOTALL))
    assert "```" not in outside
    assert re.findall(r"^(?:    |\t)\S.*", outside, re.MULTILINE) == []


@pytest.mark.parametrize("page, command", EVERY, ids=lambda value: str(value)[:60])
def test_every_command_is_one_that_exists(page, command, tmp_path, monkeypatch):
    """fairseq and difformer parse theirs, make and the examples print what they would run."""
    program, *arguments = command.words
    if program == "torchrun":
        assert arguments[:3] == ["--nproc_per_node", "2", "fairseq-train"]
        program, *arguments = arguments[2:]
    if program in FAIRSEQ or program == "fairseq-preprocess":
        (tmp_path / "codes").touch()  # the one file that is looked for at once
        monkeypatch.chdir(tmp_path)
        assert parsed_by_fairseq(program, arguments)
    elif program == "difformer":
        assert build_parser().parse_args(arguments).run
    elif program == "make":
        dry = subprocess.run(["make", "--dry-run", *arguments], cwd=REPOSITORY)
        assert dry.returncode == 0
    elif program.startswith("examples/"):
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        # GPUS: else the script asks torch how many there are
        environment = {"GPUS": "0", **command.environment, "DRY_RUN": "1", "PATH": path}
        script = ["bash", REPOSITORY / program, tmp_path, tmp_path, *arguments[2:]]
        (tmp_path / "teacher.pt").touch()
        (tmp_path / "cmlm.pt").touch()
        done = subprocess.run(
            script, env={**os.environ, **environment}, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("\n$ ") >= 1
    elif program == "python":
        assert arguments[0] == "-c" or (REPOSITORY / arguments[0]).is_file()
    elif page != "docs/tutorial.md":  # all of the tutorial is run
        assert program in EXCUSED


def test_nothing_is_excused_that_is_not_there():
    programs = {command.words[0] for _, command in EVERY}
    assert set(EXCUSED) <= programs


def test_the_make_targets_in_the_text_exist():
    targets = set(re.findall(r"`make ([a-z-]+)", "".join(PAGES.values())))
    assert {"demo", "test", "docs"} <= targets
    dry = subprocess.run(["make", "--dry-run", *targets], cwd=REPOSITORY, capture_output=True)
    assert dry.returncode == 0, dry.stderr


def test_the_readme_is_two_screens():
    assert len(PAGES["README.md"].splitlines()) <= 150


@pytest.mark.parametrize("page", PAGES)
def test_no_placeholder_is_left(page):
    assert re.findall(r"@[A-Z_]+@|TODO|FIXME|XXX", PAGES[page]) == []


def test_options_md_is_what_the_code_says():
    script = [sys.executable, REPOSITORY / "scripts" / "options_table.py", "--check"]
    done = subprocess.run(script, capture_output=True, text=True)
    assert done.returncode == 0, f"run scripts/options_table.py\n{done.stderr[-2000:]}"


@functools.cache
def known_options():
    """The options of all commands that documents may name."""
    difformer_plugin.register()
    from difformer_plugin.tasks.diffusion_translation import DiffusionTranslationConfig

    known = set(re.findall(r"\| `(--[\w-]+)` \|", PAGES["docs/options.md"]))
    for get_parser in FAIRSEQ.values():
        parser = get_parser()
        known |= set(parser._option_string_actions)
    known |= set(options.get_preprocessing_parser()._option_string_actions)
    known |= {flag(field.name) for field in fields(DiffusionTranslationConfig)}
    pending = [build_parser()]
    for parser in pending:
        known |= set(parser._option_string_actions)
        for action in parser._actions:
            if isinstance(action.choices, dict):
                pending += action.choices.values()
    return known


# options of other programs, and those of authors' or fairseq's models that the text names
FOREIGN = {
    *("--no-self-cond", "--no-share-all-embeddings"),  # see families.architectures.add_switches
    "--logdir",  # of TensorBoard
    "--decoding-kept-noise",  # of the sampler in docs/extending.md
    *("--no-build-isolation", "--noise-factor", "--check", "--user-dir", "--noise"),
    *("--iter-decode-max-iter", "--eval-bleu", "--eval-bleu-args", "--nproc_per_node"),
    *("--share-all-embeddings", "--no-epoch-checkpoints", "--max-source-positions"),
    *("--max-target-positions", "--criterion", "--arch", "--task", "--optimizer", "--strict"),
}


@pytest.mark.parametrize("page", PAGES)
def test_every_option_in_the_text_exists(page):
    named = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", PAGES[page]))
    assert named - known_options() - FOREIGN - set(TASK_AND_OPTIMISER) == set()


# options that fairseq adds only where a task, optimiser or scheduler is named
TASK_AND_OPTIMISER = re.findall(r"--[\w-]+", " ".join(c.line for _, c in EVERY))

MODULES = {
    module.name for module in pkgutil.walk_packages(difformer_plugin.__path__, "difformer_plugin.")
}


@pytest.mark.parametrize("page", ["docs/paper-to-code.md", "docs/extending.md", "docs/api.md"])
def test_every_name_of_the_code_exists(page):
    """`room.module.name` in these pages, with or without difformer_plugin in front of it."""
    rooms = {module.split(".")[1] for module in MODULES}
    pattern = rf"(?:`|::: )(?:difformer_plugin\.)?((?:{'|'.join(sorted(rooms))})(?:\.\w+)+)"
    names = set(re.findall(pattern, PAGES[page]))
    assert names
    assert [name for name in sorted(names) if not resolved(f"difformer_plugin.{name}")] == []


def resolved(name):
    """Whether a dotted name is a module, or an attribute of one."""
    parts = name.split(".")
    at = next(i for i in range(len(parts), 0, -1) if pkg_exists(".".join(parts[:i])))
    thing = __import__(".".join(parts[:at]), fromlist=["_"])
    for part in parts[at:]:
        if not hasattr(thing, part):
            return part in getattr(thing, "__dataclass_fields__", {})
        thing = getattr(thing, part)
    return True


def pkg_exists(name):
    return name in MODULES or name == "difformer_plugin"


def words_in_turn(text):
    """Each two plain words that follow one another."""
    found = [word.strip(",:;.") for word in text.replace("`", "").split()]
    return {(a, b) for a, b in zip(found, found[1:]) if a.isalpha() and b.isalpha()}


def messages():
    """The texts in the code, with the variables in them as an ellipsis."""
    for path in Path(difformer_plugin.__path__[0]).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = node.values
                yield "".join(p.value if isinstance(p, ast.Constant) else "…" for p in parts)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


OF_FAIRSEQ = "Could not infer model type"
APART = {("tokens", "more"), ("dictionaries", "beside"), ("published", "at"), ("translation", "on")}


def test_troubleshooting_quotes_messages_that_there_are():
    known = set().union(*map(words_in_turn, messages())) | words_in_turn(OF_FAIRSEQ) | APART
    page = PAGES["docs/troubleshooting.md"]
    quoted = [line.split(" | ")[0][2:] for line in page.splitlines() if line.startswith("| ")]
    assert len(quoted) > 60
    lost = {
        said: words - known
        for said in quoted
        if said != "Message"
        for words in [set().union(*map(words_in_turn, re.split("[…;]", said)))]
        if words - known
    }
    assert lost == {}


def test_the_code_of_extending_runs():
    """All of its blocks in their order, and the laws that it states of them."""
    code = "".join(code for kind, code in blocks(PAGES["docs/extending.md"]) if kind == "python")
    done = subprocess.run([sys.executable, "-c", code + EXTENDING], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


EXTENDING = """
import torch
from difformer_plugin.diffusion.gaussian.process import GaussianProcess

process = GaussianProcess.create("quadratic", 100).spaced(10)
z_0, random = torch.randn(1, 50_000), torch.Generator().manual_seed(1)
noise = lambda: torch.randn(z_0.shape, generator=random)
for kept in (0.0, 0.5, 1.0):
    now, then = process.alphas_cumprod[5], process.alphas_cumprod[4]
    z_t = now**0.5 * z_0 + (1 - now) ** 0.5 * noise()
    # with --clamping and others, what was predicted has another vector beside it
    for prediction in (z_0, torch.cat([z_0, z_0 + 1], dim=-1)):
        z_s = Renoise(process, kept_noise=kept).step(z_t, prediction, 5, noise)
        residual = z_s - then**0.5 * z_0
        assert abs(residual.var().item() / (1 - then) - 1) < 0.05

from types import SimpleNamespace
from fairseq.data import Dictionary

candidates = [SimpleNamespace(tokens=torch.tensor([0, *tokens, 2])) for tokens in ([5, 6], [5, 5])]
reranker = FewRepetitions(None, Dictionary())
assert reranker.scores(SimpleNamespace(candidates=[candidates])) == [[0.0, -0.5]]
"""


@pytest.mark.parametrize("page", PAGES)
def test_every_file_that_is_named_exists(page):
    names = re.findall(r"`((?:[\w-]+/)+[\w-]+\.(?:py|sh|md|yaml|toml|svg|cff))`", PAGES[page])
    for name in names:
        places = (REPOSITORY / name, REPOSITORY / "difformer_plugin" / name)
        assert "NAME" in name or any(place.exists() for place in places), name


LINK = re.compile(r"\]\(([^)\s]+)\)")
LINKED = {
    **PAGES,
    **{
        str(path.relative_to(REPOSITORY)): path.read_text("utf-8")
        for path in (REPOSITORY / "benchmarks").glob("*.md")
    },
}


def anchors(text):
    """The anchors of a page's headings, as forges and MkDocs make them."""
    text = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    plain = (re.sub(r"[^\w\s-]", "", heading).strip().lower() for heading in headings)
    return {re.sub(r"[-\s]+", "-", heading) for heading in plain}


@pytest.mark.parametrize("page", LINKED)
def test_links_lead_somewhere(page):
    text = re.sub(r"^```.*?^```$", "", LINKED[page], flags=re.MULTILINE | re.DOTALL)
    for link in LINK.findall(text):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (REPOSITORY / page).parent / path if path else REPOSITORY / page
        assert target.exists(), link
        if anchor:
            name = str(target.resolve().relative_to(REPOSITORY))
            assert anchor in anchors(LINKED[name]), link


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built as `make docs` does: any warning is an error."""
    pytest.importorskip("mkdocs")
    folder = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder]
    done = subprocess.run(build, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def test_the_site_loads_nothing_from_elsewhere(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > len(PAGES)
    for path in pages:
        text = path.read_text("utf-8")
        loaded = re.findall(r"<(?:script|link|img|iframe|source)\b[^>]*>", text)
        assert [tag for tag in loaded if re.search(r"""["'](?:https?:)?//""", tag)] == [], path
    for path in site.rglob("*.css"):
        assert not re.search(r"(?:url\(|@import)\s*['\"]?(?:https?:)?//", path.read_text("utf-8"))
