"""Discrete diffusion through fairseq's commands: every pair of process and objective."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from harness import (
    DISCRETE,
    EXAMPLES,
    SENTENCES,
    TASK,
    USER_DIR,
    lines,
    load,
    logged,
    quick_and_slow,
    succeed,
    weights,
)

import difformer_plugin

PAIRS = {
    "mdlm": ["--objective", "mdlm"],
    "d3pm-absorbing": ["--objective", "d3pm"],
    "d3pm-uniform": ["--objective", "d3pm", "--process", "uniform"],
    "d3pm-nearest": ["--objective", "d3pm", "--process", "nearest", "--neighbours", 3],
    "sedd-absorbing": ["--objective", "sedd"],
    "sedd-uniform": ["--objective", "sedd", "--process", "uniform"],
    "flexible": ["--objective", "flexible"],
}
# Left to the slow tests.
LONG = ("d3pm-absorbing", "d3pm-nearest", "d3pm-uniform", "sedd-absorbing", "sedd-uniform")
EXTRA = "chain._extra_state"


@pytest.fixture(scope="module")
def pair_options(teacher):
    """The options of each pair, the embeddings of its neighbours included."""
    nearest = [*PAIRS["d3pm-nearest"], "--neighbour-embeddings", teacher]
    return PAIRS | {"d3pm-nearest": nearest}


@pytest.fixture(scope="module")
def family(corpus, pair_options, discrete_model):
    """A pair's trained checkpoint, one whose outputs differ, and fairseq-train's log."""

    def call(name):
        return discrete_model(*pair_options[name])

    return call


@pytest.fixture(scope="module")
def generate(corpus, tmp_path_factory):
    """fairseq-generate on the test set, in three steps; the same command runs once."""
    folder, outcomes = tmp_path_factory.mktemp("generate"), {}

    def call(path, *options):
        command = ("fairseq-generate", corpus.joined, *TASK, "--path", path)
        command = (*command, "--decoding-steps", 3, "--seed", 5, *options)
        if command not in outcomes:
            outcomes[command] = succeed(folder, *command)
        return outcomes[command]

    return call


def validated(folder, corpus, path, *options):
    """What fairseq-validate logs of the validation set."""
    command = ["fairseq-validate", corpus.joined, *TASK, "--path", path, "--log-format", "simple"]
    outcome = succeed(folder, *command, *options)
    return logged(outcome.out + outcome.err, "valid")[-1]


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * (name in LONG)) for name in PAIRS],
)
def test_every_pair_trains_validates_and_translates(name, family, corpus, generate, tmp_path):
    """Losses and translations of a sentence do not depend on its batch."""
    found = family(name)
    rows = logged(found.log, "valid")
    terms = ["loss", "diffusion", "bound"]
    terms += ["insertions"] if name == "flexible" else ["length"]
    assert float(rows[-1]["bleu"]) >= 0
    validations = [
        validated(tmp_path, corpus, found.trained, "--batch-size", size) for size in (50, 4)
    ]
    for term in terms:
        first, second, training = (float(row[term]) for row in [*validations, rows[-1]])
        assert first == pytest.approx(second, abs=2e-4) and first > 0
        assert first == pytest.approx(training, abs=2e-4)
    assert ("length" in validations[0]) == (name != "flexible")
    tokens = sum(len(line.split()) for line in lines(corpus.text / "valid.en"))
    assert (float(validations[0]["bsz"]), float(validations[0]["wpb"])) == (SENTENCES, tokens)

    outcomes = [generate(found.model, "--batch-size", size) for size in (50, 4)]
    translations = outcomes[0].translations()
    assert sorted(translations) == list(range(SENTENCES))
    # A model whose lengths grow inserts few tokens after so few updates.
    assert len(set(translations.values())) > (3 if name == "flexible" else SENTENCES // 3)
    assert outcomes[1].translations() == translations
    text = lines(corpus.text / "test.de")[::-1]
    (tmp_path / "input").write_text("".join(f"{line}\n" for line in text), "utf-8")
    interactive = succeed(
        tmp_path,
        *("fairseq-interactive", corpus.joined, *TASK, "--path", found.model, "--seed", 5),
        *("--decoding-steps", 3, "--buffer-size", 16, "--batch-size", 7),
        *("--input", tmp_path / "input"),
    ).translations()
    assert [interactive[i] for i in reversed(range(SENTENCES))] == [
        translations[i] for i in range(SENTENCES)
    ]


@pytest.mark.parametrize(
    "name",
    quick_and_slow([("mdlm",), ("flexible",)], [("d3pm-uniform",), ("d3pm-nearest",)]),
)
def test_bf16_trains_on_the_cpu(name, corpus, pair_options, tmp_path):
    command = ["fairseq-train", corpus.joined, *DISCRETE, *pair_options[name], "--bf16"]
    outcome = succeed(tmp_path, *command, "--max-update", 20, "--save-dir", tmp_path)
    first, *_, last = logged(outcome.out, "valid")  # of the same times and noise
    assert float(last["bound"]) < float(first["bound"])
    saved = weights(tmp_path / "checkpoint_last.pt")["denoiser.embed_tokens.weight"]
    assert torch.equal(saved, saved.bfloat16().to(saved))


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        pytest.param(
            ["--objective", "d3pm", "--process", "nearest", "--neighbours", 3],
            marks=pytest.mark.slow,
        ),
        ["--objective", "d3pm", "--process", "uniform", "--noise-schedule", "mutual_information"],
    ],
)
def test_tables_of_the_data_come_back_from_the_checkpoint(
    options, corpus, teacher, other_vectors, generate, tmp_path
):
    """The process stays as it was, even if the embeddings are gone or the text is another one."""
    nearest = "nearest" in options
    embeddings = tmp_path / "embeddings.pt"
    shutil.copy(teacher, embeddings)
    command = ["fairseq-train", corpus.joined, *DISCRETE, *options, "--save-dir", tmp_path]
    given = ["--neighbour-embeddings", embeddings] if nearest else []
    succeed(tmp_path, *command, *given, "--max-update", 3)
    before = weights(tmp_path / "checkpoint_last.pt")
    assert set(before[EXTRA]) == ({"edges", "weights", "table"} if nearest else {"table"})
    embeddings.unlink()
    generate(tmp_path / "checkpoint_last.pt")
    other = [] if nearest else ["--train-subset", "test"]
    outcome = succeed(
        *(tmp_path, *command, *given, *other),
        *("--max-update", 6, "--reset-dataloader", "--max-epoch", 9),
    )
    after = weights(tmp_path / "checkpoint_last.pt")
    assert int(logged(outcome.out, "valid")[-1]["num_updates"]) == 6
    for made, tensor in before[EXTRA].items():
        assert torch.equal(after[EXTRA][made], tensor)
    # From these embeddings, or this text, other tables would have been computed.
    (tmp_path / "anew").mkdir()
    given = ["--neighbour-embeddings", other_vectors] if nearest else other
    succeed(tmp_path, *command[:-1], tmp_path / "anew", *given, "--max-update", 1)
    anew = weights(tmp_path / "anew" / "checkpoint_last.pt")
    made = "edges" if nearest else "table"
    assert not torch.equal(anew[EXTRA][made][:200], before[EXTRA][made][:200])


@pytest.mark.slow  # the quick tests have it in test_stopping.py
def test_resumed_training_is_as_if_it_had_not_stopped(corpus, tmp_path):
    for folder, updates in (("half", 5), ("whole", 10), ("half", 10)):
        command = ["fairseq-train", corpus.joined, *DISCRETE, "--save-dir", tmp_path / folder]
        succeed(tmp_path, *command, "--max-update", updates)
    resumed, whole = (weights(tmp_path / f / "checkpoint_last.pt") for f in ("half", "whole"))
    for name, tensor in whole.items():
        if torch.is_tensor(tensor):
            torch.testing.assert_close(resumed[name], tensor, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "name, options",
    [
        ("mdlm", ["--decoding-sampler", "confidence"]),
        ("mdlm", ["--decoding-sampler", "confidence", "--decoding-remasking"]),
        ("mdlm", ["--decoding-temperature", 1]),
        pytest.param(
            "sedd-uniform",
            ["--decoding-sampler", "tau_leaping", "--decoding-temperature", 1],
            marks=pytest.mark.slow,
        ),
        ("flexible", ["--decoding-temperature", 1]),
        pytest.param(
            "d3pm-uniform",
            ["--length-beam-size", 3, "--noise-beam-size", 2, "--bleu-mbr"],
            marks=pytest.mark.slow,
        ),
        ("flexible", ["--noise-beam-size", 4, "--bleu-mbr"]),
    ],
)
def test_an_option_of_decoding_has_an_effect(name, options, family, generate):
    path = family(name).model
    translations = generate(path, *options).translations()
    assert sorted(translations) == list(range(SENTENCES))
    assert translations != generate(path).translations()


@pytest.mark.slow
def test_a_teacher_chooses(family, corpus, teacher, generate):
    path = family("mdlm").model
    beams = ["--length-beam-size", 3, "--noise-beam-size", 2]
    chosen = generate(f"{path}:{teacher}", *beams, "--ppl-mbr").translations()
    everything = generate(path, *beams, "--nbest", 6).lines("H")
    assert len(everything) == 6 * SENTENCES
    for number, text in chosen.items():
        assert text in [other for i, other in everything if i == number]
    assert chosen != generate(path, *beams).translations()


@pytest.mark.parametrize("name", ["mdlm", "flexible"])
def test_the_history_shows_masks_and_ends_in_the_output(name, family, generate, tmp_path):
    path = tmp_path / "history.jsonl"
    outcome = generate(family(name).model, "--retain-iter-history", "--history-file", path)
    steps = {}
    for line in lines(path):
        entry = json.loads(line)
        steps.setdefault(entry["id"], []).append(entry)
    for number, text in outcome.translations().items():
        own = [entry["tokens"][1:-1] for entry in steps[number]]
        masks = [tokens.count("[MASK]") for tokens in own]
        assert masks[-1] == 0 and own[-1] == text.split()
        if name == "mdlm":
            assert masks == sorted(masks, reverse=True) and len({len(own_) for own_ in own}) == 1
    assert any("[MASK]" in steps[number][0]["tokens"] for number in steps)
    assert all(len(entries) == 3 + (name == "flexible") for entries in steps.values())


@pytest.mark.slow
def test_the_example_of_hydra_trains(corpus, generate, tmp_path):
    sizes = {"model_dim": 32, "latent_dim": 16, "encoder_layers": 1, "decoder_layers": 1}
    succeed(
        tmp_path,
        *("fairseq-hydra-train", "--config-dir", EXAMPLES / "hydra"),
        *("--config-name", "discrete_diffusion", f"hydra.run.dir={tmp_path}", "common.cpu=true"),
        *(f"task.data={corpus.joined}", f"common.user_dir={USER_DIR}"),
        *(f"+model.{name}={value}" for name, value in sizes.items()),
        *("model.process=uniform", "model.objective=d3pm", "optimization.max_update=4"),
        *("lr_scheduler.warmup_updates=1", "dataset.max_tokens=512"),
        *("task.decoding_steps=3", f"checkpoint.save_dir={tmp_path}"),
    )
    model = load(tmp_path / "checkpoint_last.pt")["cfg"]["model"]
    assert (model["process"], model["objective"], model["latent_dim"]) == ("uniform", "d3pm", 16)
    outcome = generate(tmp_path / "checkpoint_best.pt")
    assert sorted(outcome.translations()) == list(range(SENTENCES))


@pytest.mark.slow
def test_the_insertion_model_has_an_architecture_of_its_own(corpus, generate, tmp_path):
    arch = {"discrete_diffusion_tiny": "insertion_diffusion_tiny"}
    arch |= {"discrete_diffusion_loss": "insertion_diffusion_loss"}
    steps = DISCRETE.index("--diffusion-steps")  # which continuous time has not
    command = [arch.get(x, x) for x in DISCRETE[:steps] + DISCRETE[steps + 2 :]]
    command.remove("--pred-length-offset")
    outcome = succeed(
        tmp_path,
        *("fairseq-train", corpus.joined, *command, "--max-update", 6, "--save-dir", tmp_path),
    )
    assert {"insertions", "bound"} <= set(logged(outcome.out, "valid")[-1])
    outcome = generate(tmp_path / "checkpoint_last.pt")
    assert sorted(outcome.translations()) == list(range(SENTENCES))


def test_from_pretrained_is_generate(family, corpus, generate):
    path = family("flexible").model
    difformer_plugin.register()
    from difformer_plugin.families.tokens.model import DiscreteDiffusion

    hub = DiscreteDiffusion.from_pretrained(
        str(path.parent), path.name, str(corpus.joined), decoding_steps=3, seed=5
    )
    translations = hub.translate(lines(corpus.text / "test.de"))
    assert dict(enumerate(translations)) == generate(path).translations()


def test_logits_of_masks_that_stay_change_nothing(corpus, family):
    """As benchmarks/needed_logits.py says, with a network that was trained."""
    script = Path(__file__).parents[2] / "benchmarks" / "needed_logits.py"
    checkpoint = family("mdlm").model  # its outputs differ
    options = ("--steps", "4", "--beams", "2", "1", "--sentences", "6", "--repetitions", "1")
    done = subprocess.run(
        [sys.executable, script, corpus.joined, checkpoint, *options],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "K = 4, 2 x 1: " in done.stdout and "same translations" in done.stdout
