"""F in fairseq-train, `difformer factor --from-checkpoint` and `difformer probe`."""

import json
import re
from types import SimpleNamespace

import pytest
import sacrebleu
import torch
from harness import SENTENCES, TASK, TRAIN, error_line, lines, load, logged, run, succeed, weights

from difformer_plugin.diffusion.gaussian.rescaling import NoiseSeries, dgs
from difformer_plugin.families.embeddings.rescaling import KEY

FOLLOW = [
    *("--share-all-embeddings", "--rescaling-factor", "auto", "--max-dgs", 0.15),
    *("--rescaling-update-interval", 4, "--latent-dim", 64, "--lr", 0.02),
]


def train(corpus, folder, *options):
    command = [part for part in TRAIN if part not in ("--rescaling-factor", "4")]
    return succeed(
        folder, "fairseq-train", corpus.joined, *command, *FOLLOW, *options, "--save-dir", folder
    )


def changes(outcome):
    """(before, after, updates) of each change of F that was logged."""
    found = re.findall(r"rescaling factor (\S+) -> (\S+) at (\d+) updates", outcome.out)
    return [(float(before), float(after), int(updates)) for before, after, updates in found]


@pytest.fixture(scope="module")
def followed(corpus, tmp_path_factory):
    """A run of 20 updates in one go."""
    folder = tmp_path_factory.mktemp("followed")
    outcome = train(corpus, folder, "--max-update", 20)
    return SimpleNamespace(folder=folder, outcome=outcome, path=folder / "checkpoint_last.pt")


def test_training_chooses_and_follows(followed):
    out = followed.outcome.out
    (chosen,) = re.findall(r"rescaling factor (\S+): degeneration score (\S+) for", out)
    assert float(chosen[0]) % 0.5 == 0 and float(chosen[1]) <= 0.15
    found = changes(followed.outcome)
    assert [updates for *_, updates in found] == [4, 8, 12, 16]
    assert found[0][0] == float(chosen[0])
    for (before, after, _), (following, *_) in zip(found, found[1:]):
        assert after == following and 1 / 1.101 < after / before < 1.101
    *_, row = logged(out, "valid")
    state = load(followed.path)
    assert float(row["rescaling_factor"]) == pytest.approx(found[-1][1], rel=1e-3)
    assert float(state["model"][KEY][0]) == pytest.approx(found[-1][1], rel=1e-3)
    assert 0 < float(row["dgs"]) < 0.3 and -1 <= float(row["ani"]) <= 1


@pytest.mark.slow  # the quick tests have it in test_stopping.py
def test_resuming_goes_on_with_the_factor(corpus, followed, tmp_path):
    train(corpus, tmp_path, "--max-update", 10)
    outcome = train(corpus, tmp_path, "--max-update", 20)
    assert "from the checkpoint" in outcome.out
    assert changes(outcome) == changes(followed.outcome)[2:]
    resumed, whole = weights(tmp_path / "checkpoint_last.pt"), weights(followed.path)
    for name, tensor in resumed.items():
        torch.testing.assert_close(tensor, whole[name], rtol=1e-5, atol=1e-6)


def test_decoding_and_validation_need_nothing_new(corpus, followed, tmp_path):
    outcome = succeed(
        tmp_path,
        *("fairseq-generate", corpus.joined, *TASK, "--decoding-steps", 2),
        *("--path", followed.path),
    )
    assert sorted(outcome.translations()) == list(range(SENTENCES))
    outcome = succeed(
        tmp_path,
        "fairseq-validate",
        corpus.joined,
        *TASK,
        "--path",
        followed.path,
        "--max-tokens",
        512,
    )
    *_, row = logged(followed.outcome.out, "valid")
    assert f"rescaling_factor {row['rescaling_factor']}" in outcome.out
    assert "rescaling factor " not in outcome.out + outcome.err  # nothing chosen or set anew
    assert f"| dgs {row['dgs']}" in outcome.out and f"| mse {row['mse']}" in outcome.out


def test_a_threshold_out_of_reach_ends_training_before_it_begins(corpus, tmp_path):
    outcome = run(
        tmp_path,
        *("fairseq-train", corpus.joined, *TRAIN, "--share-all-embeddings"),
        *("--rescaling-factor", "auto", "--max-dgs", 1e-4, "--save-dir", tmp_path / "new"),
    )
    assert "--max-dgs must be at least 0." in error_line(outcome)
    assert not list(tmp_path.rglob("*.pt"))


# difformer factor --from-checkpoint


def test_factor_samples_the_embeddings_of_a_checkpoint(followed, tmp_path):
    arguments = ["difformer", "factor", "--from-checkpoint", followed.path, "--samples", 300]
    outcome = succeed(tmp_path, *arguments, "--json", "--rescaling-factor", 3)
    result = json.loads(outcome.out)
    state = load(followed.path)
    types, dim = state["model"]["denoiser.embed_tokens.weight"].shape
    assert (result["vocab_size"], result["latent_dim"]) == (types - 1, dim)
    assert result["factor_in_training"] == float(state["model"][KEY][0])
    assert result["method"] == "monte-carlo" and result["samples"] == 300
    assert 0 < result["standard_error"] < result["error_bound"] < 0.05
    normal = dgs(NoiseSeries(), 3, types - 1, dim, result["sigma"])
    assert result["dgs_if_normal"] == pytest.approx(normal)
    *_, row = logged(followed.outcome.out, "valid")
    assert result["dgs_in_training"] == pytest.approx(float(row["dgs"]), abs=0.02)
    out = succeed(tmp_path, *arguments, "--max-dgs", 0.5).out
    assert "error               below" in out and "were they normal" in out


def test_factor_refuses_other_files(corpus, followed, tmp_path):
    outcome = run(tmp_path, "difformer", "factor", "--from-checkpoint", corpus.codes)
    assert "not a readable checkpoint" in error_line(outcome)
    state = load(followed.path)
    del state["model"]["denoiser.embed_tokens.weight"]
    torch.save(state, tmp_path / "other.pt")
    outcome = run(tmp_path, "difformer", "factor", "--from-checkpoint", tmp_path / "other.pt")
    assert "is not a checkpoint of a model that diffuses embeddings" in error_line(outcome)


# difformer probe


@pytest.mark.slow
def test_probe_scores_a_single_step_from_noise(corpus, model, tmp_path):
    """Its translations are those of fairseq-generate --decoding-steps 1 --decoding-fixed-t t."""
    outcome = succeed(
        tmp_path,
        *("difformer", "probe", corpus.joined, "--path", model, "--json"),
        *("--points", 4, "--batch-size", 8, "--plot", tmp_path / "probe.png", "--seed", 1),
    )
    result = json.loads(outcome.out)
    assert result["time"] == [0, 0.25, 0.5, 0.75]
    (found,) = result["bleu"].values()
    for time, bleu in zip(result["time"], found, strict=True):
        outcome = succeed(
            tmp_path,
            *("fairseq-generate", corpus.joined, *TASK, "--gen-subset", "valid"),
            *("--path", model, "--decoding-steps", 1, "--decoding-fixed-t", time),
            *("--remove-bpe", "--seed", 1),
        )
        references = [re.sub(r"@@( |$)", "", line) for line in lines(corpus.text / "valid.en")]
        hypotheses = [text for _, text in sorted(outcome.translations().items())]
        expected = sacrebleu.corpus_bleu(hypotheses, [references], tokenize="none", force=True)
        assert bleu == pytest.approx(expected.score)
    assert len(set(found)) > 1 and "tok:none" in result["signature"]
    assert (tmp_path / "probe.png").stat().st_size > 5000


def test_probe_prints_a_column_for_each_model(corpus, model, trained, tmp_path):
    outcome = succeed(
        tmp_path,
        *("difformer", "probe", corpus.joined, "--path", f"{model}:{trained.checkpoint}"),
        *("--points", 2, "--gen-subset", "test"),
    )
    head, rows = outcome.out.splitlines()[:3], outcome.out.splitlines()[3:]
    assert head == [f"[1] {model}", f"[2] {trained.checkpoint}", "t / T      [1]    [2]"]
    assert [row.split()[0] for row in rows] == ["0.000", "0.500", "mean", "BLEU,"]
    assert outcome.err == ""


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--points", 1], "--points must be at least 2, not 1"),
        (["--points", 3000], "has only 2000 steps"),
        (["--batch-size", 0], "--batch-size must be at least 1, not 0"),
        (["--gen-subset", "dev"], "dev.de-en.de.idx: no such file"),
        (["--plot", "x.txt"], "--plot x.txt: end the name in .png"),
        (["--post-process", "foo"], "--post-process 'foo' is unknown to fairseq"),
    ],
)
def test_probe_refuses_wrong_options(corpus, model, tmp_path, arguments, message):
    outcome = run(tmp_path, "difformer", "probe", corpus.joined, "--path", model, *arguments)
    assert message in error_line(outcome)


def test_probe_refuses_a_teacher(corpus, teacher, tmp_path):
    outcome = run(tmp_path, "difformer", "probe", corpus.joined, "--path", teacher)
    assert "does not diffuse embeddings" in error_line(outcome)
