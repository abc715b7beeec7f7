"""Mistakes with discrete diffusion: each one line that says what to do."""

import pytest
import torch
from harness import DISCRETE, TASK, TRAIN, error_line, load, quick_and_slow, run

CONFIDENCE = ["--decoding-sampler", "confidence"]


@pytest.fixture
def train(corpus, tmp_path):
    """fairseq-train of discrete diffusion, which must fail before it has saved anything."""

    def call(*options, command=DISCRETE):
        save = ["--max-update", 2, "--save-dir", tmp_path / "save"]
        line = error_line(run(tmp_path, "fairseq-train", corpus.joined, *command, *save, *options))
        assert not list(tmp_path.glob("save/*.pt"))
        return line

    return call


@pytest.fixture
def generate(corpus, tmp_path):
    """fairseq-generate, which must fail."""

    def call(path, *options):
        command = ["fairseq-generate", corpus.joined, *TASK, "--path", path, *options]
        outcome = run(tmp_path, *command)
        assert not outcome.lines("H")
        return error_line(outcome)

    return call


@pytest.mark.parametrize(
    "options, said",
    quick_and_slow(
        [
            (
                ["--objective", "mdlm", "--process", "uniform"],
                "mdlm is not defined for",
            ),
            (
                ["--auxiliary-loss-factor", 0.1],
                "belongs to --objective d3pm",
            ),
            (["--eval-bleu", "--decoding-steps", 51], "--decoding-steps must lie between 1 and"),
            (["--criterion", "difformer_loss"], "use --criterion discrete_diffusion_loss"),
        ],
        [
            (["--objective", "mdlm", "--process", "nearest"], "use --process absorbing, or"),
            (["--objective", "sedd", "--process", "nearest"], "use --process uniform or absorbing"),
            (["--objective", "flexible", "--process", "uniform"], "use --process absorbing, or"),
            (["--objective", "flexible", "--process", "nearest"], "use --process absorbing, or"),
            (["--objective", "vlb"], "there are d3pm, mdlm, sedd, flexible"),
            (["--process", "gaussian"], "there are uniform, absorbing, nearest"),
            (["--noise-schedule", "sqrt"], "linear, cosine, log_linear, mutual_information"),
            (["--objective", "d3pm", "--continuous-time"], "cannot be in continuous time"),
            (["--objective", "flexible", "--self-cond"], "--self-cond cannot go with"),
            (["--objective", "sedd", "--label-smoothing", 0.1], "no labels to smooth"),
            (["--score-loss", "squared"], "--score-loss squared belongs to --objective sedd"),
            (["--objective", "d3pm", "--process", "nearest"], "--neighbour-embeddings"),
            (["--neighbour-embeddings", "teacher.pt"], "does nothing with --process absorbing"),
        ],
    ),
)
def test_values_that_training_cannot_have(train, options, said):
    assert said in train(*options)


def test_a_difformer_has_another_criterion(train):
    command = ["discrete_diffusion_loss" if x == "difformer_loss" else x for x in TRAIN]
    assert "use --criterion difformer_loss" in train("--share-all-embeddings", command=command)


@pytest.mark.slow
def test_embeddings_without_neighbours(train, other_teacher, other_vectors, tmp_path):
    nearest = ["--objective", "d3pm", "--process", "nearest", "--neighbour-embeddings"]
    assert "nowhere.pt: No such file" in train(*nearest, tmp_path / "nowhere.pt")
    types = len(load(other_teacher)["model"]["decoder.embed_tokens.weight"])
    line = train(*nearest, other_teacher)
    assert f"has a table of {types} types" in line and "same dictionaries" in line
    torch.save({"model": {"weight": torch.zeros(3)}}, tmp_path / "foreign.pt")
    assert "no table of the target's types" in train(*nearest, tmp_path / "foreign.pt")
    rows = other_vectors.read_text("utf-8").splitlines(keepends=True)
    (tmp_path / "some.txt").write_text("".join(rows[:-2]), "utf-8")
    line = train(*nearest, tmp_path / "some.txt")
    assert "no vector for" in line and "and 1 other types" in line
    (tmp_path / "text.txt").write_text("not a file of vectors\n", "utf-8")
    assert "text.txt, line 1" in train(*nearest, tmp_path / "text.txt")


@pytest.mark.parametrize(
    "options, said",
    quick_and_slow(
        [
            (["--decoding-rescaling-factor", 2], "--decoding-rescaling-factor does nothing"),
            (["--decoding-steps", 51], "the model's 50 diffusion steps, not 51"),
            (
                [*CONFIDENCE, "--noise-beam-size", 2],
                "all candidates of --noise-beam-size would be equal",
            ),
        ],
        [
            (["--clamping"], "--clamping does nothing for this model, a discrete"),
            (["--decoding-temperature", -1], "--decoding-temperature must be at least 0, not -1"),
            (
                ["--decoding-temperature", "nan"],
                "--decoding-temperature must be at least 0, not nan",
            ),
            (["--decoding-sampler", "tweedie"], "use ancestral or confidence"),
            (["--decoding-remasking"], "it is an option of --decoding-sampler confidence"),
            (["--noise-beam-size", 2, "--ppl-mbr"], "--ppl-mbr needs a teacher"),
        ],
    ),
)
def test_values_that_decoding_cannot_have(discrete_model, generate, options, said):
    assert said in generate(discrete_model("--objective", "mdlm").model, *options)


@pytest.mark.parametrize(
    "options",
    quick_and_slow(
        [(["--length-beam-size", 3],), (["--decoding-fixed-t", 0.5],)],
        [
            (["--length-beam-window"],),
            (["--force-length", 5],),
            (["--force-length-ratio", 1.5],),
            (["--decoding-early-stopping", 1],),
            (["--race-after", 2, "--noise-beam-size", 3],),
        ],
    ),
)
def test_options_of_a_fixed_length_are_not_for_one_that_grows(discrete_model, generate, options):
    line = generate(discrete_model("--objective", "flexible").model, *options)
    assert f"{options[0]} does nothing for this model, a model whose lengths grow" in line


@pytest.mark.parametrize(
    "options",
    quick_and_slow([(["--decoding-temperature", 1],)], [(["--decoding-remasking"],)]),
)
def test_a_difformer_does_not_read_the_options_of_token_samplers(model, generate, options):
    line = generate(model, *options)
    assert f"{options[0]} does nothing for this model, a Difformer" in line


@pytest.mark.parametrize("name", quick_and_slow([("tweedie",)], [("confidence",), ("nonsense",)]))
def test_a_difformer_has_samplers_of_its_own(model, generate, name):
    line = generate(model, "--decoding-sampler", name)
    assert f"--decoding-sampler {name} is not for this model, a Difformer: use ancestral" in line


@pytest.mark.slow
def test_models_that_cannot_be_combined(discrete_model, generate, teacher, other_teacher):
    path = discrete_model("--objective", "mdlm").model
    mbr = ["--noise-beam-size", 2, "--ppl-mbr"]
    other = generate(f"{path}:{other_teacher}", *mbr)
    assert "dictionary" in other and "teacher" in other
    assert "must be autoregressive, not a DiscreteDiffusion" in generate(f"{path}:{path}", *mbr)
    assert "the diffusion model first" in generate(f"{teacher}:{path}", *mbr)
    assert "ensembles are not supported" in generate(f"{path}:{teacher}")
