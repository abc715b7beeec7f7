"""Translating with fairseq-generate, fairseq-interactive and from_pretrained."""

import math
from itertools import permutations

import pytest
import torch
from harness import SENTENCES, TASK, lines, load, succeed
from sacrebleu.metrics import BLEU

import difformer_plugin
from difformer_plugin.data import pipeline, recipe

STEPS = ["--decoding-steps", 5, "--seed", 5]
BEAMS = ["--length-beam-size", 3, "--noise-beam-size", 2]


@pytest.fixture(scope="module")
def generate(corpus, model, tmp_path_factory):
    """fairseq-generate on the test set; the same command runs once."""
    folder, outcomes = tmp_path_factory.mktemp("generate"), {}

    def call(*options, path=model):
        command = ("fairseq-generate", corpus.joined, *TASK, "--path", path, *STEPS, *options)
        if command not in outcomes:
            outcomes[command] = succeed(folder, *command)
        return outcomes[command]

    return call


@pytest.fixture
def interactive(corpus, model, tmp_path):
    """fairseq-interactive on some lines."""

    def call(text, *options):
        (tmp_path / "input").write_text("".join(f"{line}\n" for line in text), "utf-8")
        command = ["fairseq-interactive", corpus.joined, *TASK, "--path", model, *STEPS]
        return succeed(tmp_path, *command, "--input", tmp_path / "input", *options)

    return call


@pytest.fixture(scope="module")
def hub(corpus, model):
    """from_pretrained, from raw text to raw text."""
    difformer_plugin.register()
    from difformer_plugin.families.embeddings.model import Difformer

    return Difformer.from_pretrained(
        str(model.parent),
        model.name,
        str(corpus.joined),
        tokenizer="moses",
        bpe="subword_nmt",
        bpe_codes=str(corpus.codes),
        decoding_steps=5,
        seed=5,
    )


def scores(outcome):
    """(sentence, score in nats or BLEU, tokens) of each H-line, in the order printed."""
    rows = [line.split("\t") for line in outcome.out.splitlines() if line.startswith("H-")]
    return [(int(i[2:]), float(score) * math.log(2), text) for i, score, text in rows]


def candidates(outcome):
    """Sentence -> its candidates (score, tokens), in the order printed."""
    found = {}
    for number, score, text in scores(outcome):
        found.setdefault(number, []).append((score, text))
    assert sorted(found) == list(range(SENTENCES))
    return found


def test_generate_translates_every_sentence_alike_in_any_batch(generate, corpus):
    outcomes = [
        generate("--batch-size", 8),
        generate("--max-tokens", 300),
        generate("--batch-size", 1),
        generate(),
    ]
    first = outcomes[0].translations()
    assert sorted(first) == list(range(SENTENCES))
    assert len(set(first.values())) > SENTENCES // 2
    assert dict(outcomes[0].lines("S")) == dict(enumerate(lines(corpus.text / "test.de")))
    assert dict(outcomes[0].lines("T")) == dict(enumerate(lines(corpus.text / "test.en")))
    for outcome in outcomes[1:]:
        assert outcome.translations() == first
    reference = {number: score for number, score, _ in scores(outcomes[0])}
    alone = {number: score for number, score, _ in scores(outcomes[2])}
    assert alone == pytest.approx(reference, abs=1e-4)


def test_the_seed_decides_about_the_noise(generate):
    assert generate("--seed", 6).translations() != generate().translations()


def test_interactive_answers_each_line_as_generate_does(generate, interactive, corpus):
    text = lines(corpus.text / "test.de")
    unusual = ["", "§§ 漢字 @@@"]
    mixed = [*text[:5], *unusual, *text[5:]]
    outcome = interactive(mixed, "--buffer-size", 16, "--batch-size", 4)
    answers = outcome.translations()
    assert sorted(answers) == list(range(len(mixed)))
    generated = generate().translations()
    known = [answers[i] for i in range(len(mixed)) if mixed[i] not in unusual]
    assert known == [generated[i] for i in range(SENTENCES)]
    assert answers[5] == ""
    assert dict(outcome.lines("S"))[6] == "<unk> <unk> <unk>"
    assert answers[6] != ""
    assert interactive(mixed).translations() == answers


@pytest.mark.parametrize(
    "options, keywords",
    [
        ([], {}),
        (
            [*BEAMS, "--bleu-mbr"],
            {"length_beam_size": 3, "noise_beam_size": 2, "bleu_mbr": True},
        ),
    ],
)
def test_from_pretrained_is_interactive(hub, interactive, corpus, options, keywords):
    raw = lines(corpus.raw / "test.de")
    assert (hub.tokenizer.cfg.source_lang, hub.tokenizer.cfg.target_lang) == ("de", "en")
    # fairseq-interactive wants the languages said for its tokeniser
    moses = ["-s", "de", "-t", "en", "--tokenizer", "moses"]
    moses += ["--bpe", "subword_nmt", "--bpe-codes", corpus.codes]
    answers = dict(interactive(raw, *moses, *options).lines("D"))
    translations = hub.translate(raw, **keywords)
    assert translations == [answers[i] for i in range(SENTENCES)]
    assert len(set(translations)) > SENTENCES // 2
    assert hub.translate(raw[3], **keywords) == translations[3]


@pytest.mark.parametrize("described", [True, False], ids=["pipeline.json", "file names"])
def test_from_pretrained_has_the_direction_of_training(corpus, model, tmp_path, described):
    """A data-bin of de-en has also trained the other direction."""
    state = load(model)
    state["cfg"]["task"].update(source_lang="en", target_lang="de")
    torch.save(state, tmp_path / "model.pt")
    data_bin = tmp_path / "data-bin"
    data_bin.mkdir()
    for path in corpus.joined.iterdir():
        (data_bin / path.name).symlink_to(path)
    if described:
        subwords = pipeline.describe_subwords(pipeline.BPE, corpus.codes)
        text = recipe.load("plain").text
        own = pipeline.Pipeline("de", "en", text, subwords, "generated")
        pipeline.save(own, data_bin, corpus.codes)
    difformer_plugin.register()
    from difformer_plugin.families.embeddings.model import Difformer

    hub = Difformer.from_pretrained(str(tmp_path), "model.pt", str(data_bin), decoding_steps=2)
    assert (hub.task.cfg.source_lang, hub.task.cfg.target_lang) == ("en", "de")
    assert (hub.codec is not None) == described
    if described:
        found = hub.codec.pipeline
        assert (found.source_lang, found.target_lang) == ("en", "de")
    hub = Difformer.from_pretrained(  # what is asked for wins
        str(tmp_path), "model.pt", str(data_bin), source_lang="de"
    )
    assert (hub.task.cfg.source_lang, hub.task.cfg.target_lang) == ("de", "en")
    if described:
        found = hub.codec.pipeline
        assert (found.source_lang, found.target_lang) == ("de", "en")
    hub = Difformer.from_pretrained(str(tmp_path / "model.pt"), data_name_or_path=str(data_bin))
    assert (hub.task.cfg.source_lang, hub.task.cfg.target_lang) == ("en", "de")


def test_from_pretrained_translates_no_sentence_and_an_empty_one(hub, corpus):
    assert hub.translate([]) == []
    raw = lines(corpus.raw / "test.de")[:2]
    first, empty, second = hub.translate([raw[0], "", raw[1]])
    assert empty == ""
    assert [first, second] == hub.translate(raw)


def test_training_max_tokens_does_not_limit_the_length_of_a_sentence(hub, corpus):
    raw = " ".join(lines(corpus.raw / "test.de")[:4])
    expected = hub.translate([raw, raw])
    size, data = len(hub.encode(raw)), hub.cfg.dataset
    trained = data.max_tokens
    try:
        data.max_tokens = size - 1
        assert hub.translate([raw, raw]) == expected
    finally:
        data.max_tokens = trained


def test_nbest_lists_candidates_by_score(generate):
    best = candidates(generate(*BEAMS))
    ranked = candidates(generate(*BEAMS, "--nbest", 3))
    everything = candidates(generate(*BEAMS, "--nbest", 6))
    for number in range(SENTENCES):
        assert len(ranked[number]) == 3 and len(everything[number]) == 6
        assert everything[number][:3] == ranked[number]
        assert ranked[number][:1] == best[number]
        found = [score for score, _ in everything[number]]
        assert found == sorted(found, reverse=True)
    assert any(len({text for _, text in everything[i]}) == 6 for i in everything)


def test_bleu_mbr_ranks_by_the_mean_bleu_against_the_others(generate):
    ranked = candidates(generate(*BEAMS, "--bleu-mbr", "--nbest", 6))
    bleu = BLEU(effective_order=True)
    for found in ranked.values():
        words = [f"{text} ".replace("@@ ", "").rstrip() for _, text in found]
        expected = [0.0] * 6
        for i, j in permutations(range(6), 2):
            expected[i] += bleu.sentence_score(words[i], [words[j]]).score / 5
        assert [score for score, _ in found] == pytest.approx(expected, abs=1e-3)
        assert expected == pytest.approx(sorted(expected, reverse=True))
    plain = generate(*BEAMS).translations()
    assert {i: found[0][1] for i, found in ranked.items()} != plain


def test_ppl_mbr_ranks_by_what_fairseq_says_the_teacher_thinks(generate, model, teacher):
    outcome = generate(*BEAMS, "--ppl-mbr", "--nbest", 6, path=f"{model}:{teacher}")
    ranked, sources = candidates(outcome), dict(outcome.lines("S"))
    assert ranked != candidates(generate(*BEAMS, "--nbest", 6))
    from fairseq import checkpoint_utils
    from fairseq.sequence_scorer import SequenceScorer

    difformer_plugin.register()
    models, _, task = checkpoint_utils.load_model_ensemble_and_task([str(teacher)])
    dictionary = task.target_dictionary
    scorer = SequenceScorer(dictionary)
    for number in range(5):
        for score, text in ranked[number]:
            source = task.source_dictionary.encode_line(sources[number], add_if_not_exist=False)
            target = dictionary.encode_line(text, add_if_not_exist=False).long()
            previous = torch.cat([target[-1:], target[:-1]])
            sample = {
                "net_input": {
                    "src_tokens": source[None].long(),
                    "src_lengths": torch.tensor([len(source)]),
                    "prev_output_tokens": previous[None],
                },
                "target": target[None],
            }
            expected = scorer.generate([models[0].eval()], sample)[0][0]["score"]
            assert score == pytest.approx(expected.item(), abs=1e-4)
        found = [score for score, _ in ranked[number]]
        assert found == sorted(found, reverse=True)


def test_from_pretrained_takes_a_teacher(generate, corpus, model, teacher, tmp_path):
    """With a model whose training validated BLEU, when no teacher is there."""
    state = load(model)
    assert state["cfg"]["task"]["eval_bleu"]
    (tmp_path / "difformer.pt").symlink_to(model)
    (tmp_path / "teacher.pt").symlink_to(teacher)
    difformer_plugin.register()
    from difformer_plugin.families.embeddings.model import Difformer

    hub = Difformer.from_pretrained(
        str(tmp_path),
        "difformer.pt:teacher.pt",
        str(corpus.joined),
        decoding_steps=5,
        seed=5,
    )
    beams = {"length_beam_size": 3, "noise_beam_size": 2}
    translations = hub.translate(lines(corpus.text / "test.de"), ppl_mbr=True, **beams)
    outcome = generate(*BEAMS, "--ppl-mbr", path=f"{model}:{teacher}")
    assert dict(enumerate(translations)) == outcome.translations()
    assert outcome.translations() != generate(*BEAMS).translations()


def test_the_history_has_every_step_and_ends_in_the_output(generate):
    outcome = generate("--retain-iter-history", "--retain-z-0-hat")
    steps = {}
    for line in outcome.out.splitlines():
        if line.startswith("E-"):
            place, text = line.split("\t")
            number, step = map(int, place[2:].split("_"))
            steps.setdefault(number, {})[step] = [
                word for word in text.split() if word not in ("<s>", "</s>")
            ]
    assert outcome.translations() == generate().translations()
    for number, text in outcome.translations().items():
        assert sorted(steps[number]) == list(range(5))
        assert steps[number][4] == text.split()
    assert any(steps[number][0] != steps[number][4] for number in steps)

    noisy = [line for line in generate("--retain-iter-history").out.splitlines() if "E-" in line]
    clean = [line for line in outcome.out.splitlines() if line.startswith("E-")]
    assert len(noisy) == len(clean) and noisy != clean


def test_early_stopping_leaves_out_the_last_steps(generate):
    def history(*options):
        found = generate("--retain-iter-history", "--retain-z-0-hat", *options).out.splitlines()
        return {line for line in found if line.startswith("E-")}

    assert history("--decoding-early-stopping", 2) == {
        line for line in history() if int(line.split("\t")[0].split("_")[1]) < 3
    }


@pytest.mark.parametrize(
    "options",
    [
        ["--decoding-fixed-t", 0.5],
        ["--clamping"],
        ["--decoding-noise-schedule", "linear"],
        ["--decoding-rescaling-factor", 2],
        ["--decoding-rescaling-factor", 2, "--decoding-vp-rf"],
    ],
)
def test_an_option_of_decoding_has_an_effect(generate, options):
    outcome, plain = generate(*options), generate()
    assert sorted(outcome.translations()) == list(range(SENTENCES))
    assert scores(outcome) != scores(plain)
    # lengths are predicted before the reverse process begins
    assert lengths(outcome) == lengths(plain)


def lengths(outcome):
    """(sentence, number of tokens with BOS and EOS) of each P-line, in the order printed."""
    return [(number, len(text.split())) for number, text in outcome.lines("P")]


def test_a_forced_length_is_kept(generate, corpus):
    assert {n for _, n in lengths(generate("--force-length", 5))} == {5 + 2}
    doubled = dict(lengths(generate("--force-length-ratio", 2)))
    sources = [len(line.split()) for line in lines(corpus.text / "test.de")]
    assert doubled == {i: 2 * n + 2 for i, n in enumerate(sources)}


def test_a_window_of_lengths_is_consecutive(generate):
    found = {}
    options = ["--length-beam-size", 3, "--nbest", 3]
    for number, length in lengths(generate(*options, "--length-beam-window")):
        found.setdefault(number, []).append(length)
    best = dict(lengths(generate()))
    for number, tried in found.items():
        assert sorted(tried) == [best[number] - 1, best[number], best[number] + 1]
    beam = {}
    for number, length in lengths(generate(*options)):
        beam.setdefault(number, []).append(length)
    assert all(len(set(tried)) == 3 and best[i] in tried for i, tried in beam.items())
    assert any(sorted(beam[i]) != sorted(found[i]) for i in beam)
