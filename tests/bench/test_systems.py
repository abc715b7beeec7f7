"""benchmarks/systems.py: every system can be trained and decoded as it says, and nothing twice."""

import importlib.util
import sys
from argparse import Namespace
from pathlib import Path

import pytest
from fairseq import options
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.models import ARCH_MODEL_REGISTRY

from difformer_plugin import register
from difformer_plugin.decoding import settings
from difformer_plugin.decoding.generator import DiffusionGenerator

SCRIPT = Path(__file__).parents[2] / "benchmarks/systems.py"
QUICK = ["full", "words"]
ALL = ["fairseq-train", "fairseq-generate", "fairseq-generate"]
spec = importlib.util.spec_from_file_location("systems", SCRIPT)
systems = importlib.util.module_from_spec(spec)
spec.loader.exec_module(systems)


@pytest.fixture
def data(tmp_path):
    """What the task looks up in a data-bin: dictionaries."""
    for language in ("de", "en"):
        (tmp_path / f"dict.{language}.txt").write_text("a 1\nb 1\n", "utf-8")
    return [str(tmp_path), "--source-lang", "de", "--target-lang", "en"]


def parsed(parser, data, *texts):
    words = [word for text in texts for word in text.split()]
    arguments = [*data, *systems.TASK, *words]
    return convert_namespace_to_omegaconf(options.parse_args_and_arch(parser, arguments))


@pytest.mark.parametrize(
    "name",
    [
        name if name in QUICK else pytest.param(name, marks=pytest.mark.slow)
        for name in systems.SYSTEMS
    ],
)
def test_the_options_are_accepted(name, data, joined_task):
    register()
    system = systems.SYSTEMS[name]
    training = options.get_training_parser()
    cfg = parsed(training, data, system.options, systems.OPTIMIZER, systems.LOG)
    assert cfg.optimization.lr == [3e-3]
    model = ARCH_MODEL_REGISTRY[cfg.model._name].build_model(cfg.model, joined_task)
    assert cfg.criterion._name == model.criterion
    for decoding in system.decodings.values():
        parser = options.get_generation_parser(default_task="diffusion_translation")
        generation = parsed(parser, data, systems.GENERATE, decoding, "--path model.pt")
        chosen = settings.merge(generation.task, Namespace(), None)
        DiffusionGenerator(joined_task.target_dictionary, chosen, 1).check_models([model])


def test_what_is_there_is_kept(tmp_path, monkeypatch, capsys):
    """A stopped run goes on, and other numbers of updates have translations of their own."""
    commands = []

    def execute(command, log):
        commands.append(command)
        lines = ["D-1\t-0.5\tA man rides a bicycle.", "S-0\tx", "D-0\t-1\tTwo dogs run."]
        log.write_text("\n".join(lines), "utf-8")

    for folder in ("raw", "data-bin"):
        (tmp_path / folder).mkdir()
    references = "Two dogs run.\nA man rides a red bicycle.\n"
    (tmp_path / "raw/test.en").write_text(references, "utf-8")
    monkeypatch.setattr(systems, "execute", execute)
    for updates, new in (("5", 3), ("5", 0), ("7", 3)):
        commands.clear()
        monkeypatch.setattr(
            sys, "argv", ["systems.py", str(tmp_path), "d3pm", "--updates", updates]
        )
        systems.main()
        assert [command[0] for command in commands] == ALL[:new]
        first = capsys.readouterr().out.splitlines()[1].split()
        assert first[0] == "d3pm" and 40 < float(first[1]) < 90 and first[2] == "50%"
    found = (tmp_path / "systems/d3pm/one-5.en").read_text("utf-8")
    assert found == references.replace("red ", "")


@pytest.mark.parametrize(
    ("arguments", "said"), [(["demo", "d4pm"], "unknown: d4pm"), (["demo"], "demo has no data-bin")]
)
def test_bad_input_is_one_line(arguments, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["systems.py", *arguments])
    with pytest.raises(SystemExit):
        systems.main()
    assert said in capsys.readouterr().err
