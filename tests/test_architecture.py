"""The package's source against its architecture: which room may import which, and what it may ask.

`docs/architecture.md` draws the rooms. The tests read the source and import nothing of it.
"""

import ast
from functools import cache
from pathlib import Path

import pytest

PACKAGE = "difformer_plugin"
ROOT = Path(__file__).parents[1] / PACKAGE
FAMILIES = ("embeddings", "tokens", "insertion", "joint")
KNOW_FAMILIES = ("families", "interop", "models", "registration")

# What each room must not import. A room that is not named here may import all but `cli`.
ON_TOP = ("tasks", "bench", "tuning", "interop", "translation")
NO_MODELS = ("networks", "families", "decoding", "reranking", *ON_TOP)
ABOVE_NETWORKS = ("families", "decoding", "reranking", *ON_TOP)
ABOVE_DECODING = (*ON_TOP, "demo", "distillation", "evaluation")
FORBIDDEN = {
    "diffusion": ("fairseq", *NO_MODELS),
    "networks": ABOVE_NETWORKS,
    "families": ABOVE_DECODING,
    "reranking": ("decoding", *ABOVE_DECODING),
    "decoding": ABOVE_DECODING,
    "data": NO_MODELS,
    "storage": NO_MODELS,
    "evaluation": NO_MODELS,
}

# Strings that equal a registered name and are none, or that may be there: file -> name -> reason.
ALLOWED_NAMES = {
    "cli/main.py": {"difformer": "the name of the program"},
    "cli/bench.py": {"difformer_iwslt_de_en": "the default of `difformer bench --arch`"},
    "cli/factor.py": {"nearest": "a way to compute the degeneration score"},
    "diffusion/gaussian/degeneration.py": {"nearest": "a way to compute the degeneration score"},
    "diffusion/timesteps.py": {"uniform": "times that are evenly spread"},
}
# Questions about the type of a model: file -> source -> reason.
ALLOWED_QUESTIONS = {
    "checkpoints/without_data.py": {
        "getattr(model_class, 'diffuses_embeddings', False)": "a checkpoint of any program's model"
    },
}


@cache
def parse(path):
    return ast.parse(path.read_text("utf-8"))


def source_files():
    return sorted(ROOT.rglob("*.py"))


def relative(path):
    return path.relative_to(ROOT).as_posix()


def room_of(path):
    """The folder, or the module, right under the package."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def module_of(path):
    parts = [PACKAGE, *path.relative_to(ROOT).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in source_files()}


@cache
def imports(path):
    """The modules that a file imports, in functions as well."""
    found = set()
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{relative(path)}: relative imports hide the room"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else node.module for name in names}
    return found


def is_below(module, parent):
    return module == parent or module.startswith(f"{parent}.")


@pytest.mark.parametrize("room", FORBIDDEN)
def test_imports_run_in_one_direction(room):
    files = [path for path in source_files() if room_of(path) == room]
    assert files
    wrong = [
        f"{relative(path)} imports {module}"
        for path in files
        for module in imports(path)
        for other in FORBIDDEN[room]
        if is_below(module, other if other == "fairseq" else f"{PACKAGE}.{other}")
    ]
    assert not wrong


def test_nobody_imports_cli():
    wrong = [
        relative(path)
        for path in source_files()
        if room_of(path) != "cli" and any(is_below(m, f"{PACKAGE}.cli") for m in imports(path))
    ]
    assert not wrong


def test_no_module_imports_itself_by_way_of_others():
    """Imports in functions count: they only hide a circle."""
    graph = {name: imports(path) & MODULES.keys() for name, path in MODULES.items()}
    done, circles = set(), []

    def visit(name, way):
        if name in way:
            circles.append([*way[way.index(name) :], name])
        elif name not in done:
            for other in sorted(graph[name]):
                visit(other, [*way, name])
            done.add(name)

    for name in graph:
        visit(name, [])
    assert not circles


def test_only_families_import_a_family():
    wrong = [
        f"{relative(path)} imports {module}"
        for path in source_files()
        if room_of(path) not in KNOW_FAMILIES
        for module in imports(path)
        for family in FAMILIES
        if is_below(module, f"{PACKAGE}.families.{family}")
    ]
    assert not wrong


def test_all_families_are_known_here():
    folders = [p.name for p in (ROOT / "families").iterdir() if (p / "__init__.py").exists()]
    assert sorted(folders) == sorted(FAMILIES)


def registered_names():
    """Names of models, sizes, criteria, objectives and forward processes."""
    import difformer_plugin.families.registered  # noqa: F401
    from difformer_plugin.families.contract import FAMILIES as MODELS
    from difformer_plugin.families.embeddings import config as embeddings
    from difformer_plugin.families.insertion import config as insertion
    from difformer_plugin.families.joint import config as joint
    from difformer_plugin.families.tokens import config as tokens

    names = {*tokens.OBJECTIVES, *tokens.PROCESSES}
    for module in (embeddings, tokens, insertion, joint):
        names |= set(module.ARCHITECTURES)
    return names | {model.criterion for model in MODELS if hasattr(model, "criterion")}


def docstrings(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            yield node.value


def test_nobody_asks_for_a_name_of_a_family():
    """No string equals the name of a model, a size, a criterion, an objective or a process."""
    names, found = registered_names(), {}
    assert {
        "difformer",
        "insertion_diffusion_tiny",
        "joint_diffusion",
        "sedd",
        "absorbing",
    } <= names
    for path in source_files():
        if room_of(path) in KNOW_FAMILIES:
            continue
        ignored = set(map(id, docstrings(parse(path))))
        strings = {
            node.value
            for node in ast.walk(parse(path))
            if isinstance(node, ast.Constant) and id(node) not in ignored
        }
        if own := names & {value for value in strings if isinstance(value, str)}:
            found[relative(path)] = own
    assert found == {path: set(reasons) for path, reasons in ALLOWED_NAMES.items()}


def questions(tree):
    """Calls that ask an object called a model for its type: `isinstance(models[0], ...)`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args:
            asks = node.func.id in ("hasattr", "isinstance", "issubclass")
            asks |= node.func.id == "getattr" and len(node.args) > 2
            words = {n.id for n in ast.walk(node.args[0]) if isinstance(n, ast.Name)}
            words |= {n.attr for n in ast.walk(node.args[0]) if isinstance(n, ast.Attribute)}
            if asks and any("model" in word and "cfg" not in word for word in words):
                yield ast.unparse(node)


def test_nobody_asks_a_model_for_its_type():
    """Whether a model is one of diffusion is asked of `families.contract`, and nothing else is."""
    found = {
        relative(path): set(asked)
        for path in source_files()
        if room_of(path) not in KNOW_FAMILIES and (asked := list(questions(parse(path))))
    }
    assert found == {path: set(reasons) for path, reasons in ALLOWED_QUESTIONS.items()}
