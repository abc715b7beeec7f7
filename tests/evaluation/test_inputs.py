"""Systems and references from logs and plain files."""

import gzip

import pytest

from difformer_plugin.data import pipeline
from difformer_plugin.errors import UserError
from difformer_plugin.evaluation.inputs import load

RAW = ["It's a well-known dog.", "He sleeps."]
MOSES = ["It &apos;s a well @-@ known dog .", "He sleeps ."]  # by fairseq's tokeniser
SOURCES = ["Ein Hund .", "Er schläft ."]


def log(hypotheses, references, sources=SOURCES, detokenised=None):
    lines = []
    for i, (hypothesis, reference, source) in enumerate(zip(hypotheses, references, sources)):
        plain = (detokenised or hypotheses)[i]
        lines += [f"S-{i}\t{source}", f"T-{i}\t{reference}", f"H-{i}\t-0.5\t{hypothesis}"]
        lines += [f"D-{i}\t-0.5\t{plain}", f"E-{i}_0\tthe", f"E-{i}_1\t{hypothesis}"]
    return [*lines, "Generate test with beam=5: BLEU4 = 1.00"]


@pytest.fixture
def write(tmp_path):
    def write(name, lines):
        path = tmp_path / name
        path.write_text("".join(f"{line}\n" for line in lines), "utf-8")
        return path

    return write


def test_a_log_in_tokens(write):
    bpe = ["It &apos;s a well @-@ kno@@ wn dog .", "He sle@@ eps ."]
    test_set, (system,) = load(write("gen.out", log(bpe, bpe)), language="en")
    assert system.tokens == test_set.reference_tokens == MOSES
    assert system.texts == test_set.references == RAW
    assert system.steps == [["the", line] for line in MOSES]
    assert test_set.sources == SOURCES and not test_set.raw_sources
    assert any("detokenised by sacremoses (en)" in note for note in test_set.notes)


def test_a_log_detokenised_by_fairseq(write):
    path = write("gen.out", log(MOSES, RAW, detokenised=RAW))
    test_set, (system,) = load(path, language="en")
    assert system.tokens == test_set.reference_tokens == MOSES
    assert system.texts == test_set.references == RAW
    assert test_set.raw_sources


def test_a_log_in_sentencepiece_is_raw_text(write):
    pieces = ["▁It ' s ▁a ▁well - known ▁dog .", "▁He ▁sleep s ."]
    test_set, (system,) = load(write("gen.out", log(pieces, RAW)), language="en")
    assert system.texts == RAW and system.tokens == MOSES == test_set.reference_tokens
    plain, (same,) = load(write("joined.out", log(RAW, RAW)), language="en", tokenised=False)
    assert (same.texts, same.tokens, plain.references) == (RAW, MOSES, RAW)


def test_a_log_with_sentencepiece_joined_by_fairseq_is_raw_text(write):
    path = write("gen.out", [line for line in log(RAW, RAW) if line[0] != "E"])
    test_set, (system,) = load(path, ref=write("ref", RAW), language="en")
    assert (system.texts, system.tokens, test_set.reference_tokens) == (RAW, MOSES, MOSES)
    assert (
        f"translations of {path} treated as raw text; give --tokenized if they are Moses tokens"
        in (test_set.notes)
    )
    logged, (same,) = load(path, language="en")
    assert (same.tokens, logged.references, logged.reference_tokens) == (MOSES, RAW, MOSES)
    assert logged.raw_sources
    _, (told,) = load(path, ref=write("ref", RAW), language="en", tokenised=True)
    assert told.tokens == RAW


def test_raw_references_and_a_plain_baseline(write):
    ref = write("test.en", RAW)
    path = write("gen.out", log(MOSES, ["It <<unk>> .", "<<unk>> ."]))
    test_set, systems = load(path, ref=ref, baseline=write("other", RAW[::-1]))
    assert test_set.language == "en" and test_set.references == RAW
    assert [system.texts for system in systems] == [RAW, RAW[::-1]]
    assert systems[1].tokens == MOSES[::-1] and systems[1].steps is None
    assert [system.name for system in systems] == ["gen.out", "other"]
    unknown, _ = load(path, language="en")
    assert any("2 words that are not in the dictionary" in note for note in unknown.notes)


def test_raw_references_are_split_at_hyphens_if_the_translations_are(write):
    """fairseq's script for IWSLT14 does not split hyphens; the references must follow it."""
    whole = [line.replace(" @-@ ", "-") for line in MOSES]
    raw = write("raw.en", RAW)
    for lines in (MOSES, whole):
        test_set, (system,) = load(write("gen.out", log(lines, lines)), ref=raw, language="en")
        assert test_set.reference_tokens == system.tokens == lines
        noted = any("hyphens not split, as in the translations" in note for note in test_set.notes)
        assert noted == (lines == whole)


def test_plain_files(write, tmp_path):
    with gzip.open(tmp_path / "ref.en.gz", "wt", encoding="utf-8") as file:
        file.write("".join(f"{line}\n" for line in RAW))
    hyp, src = write("hyp", RAW), write("src", SOURCES)
    test_set, (system,) = load(hyp, ref=tmp_path / "ref.en.gz", src=src)
    assert (system.texts, system.tokens, test_set.sources) == (RAW, MOSES, SOURCES)
    tokens, (same,) = load(
        write("tok", MOSES), ref=write("tok.ref", MOSES), language="en", tokenised=True
    )
    assert (same.texts, same.tokens, tokens.references) == (RAW, MOSES, RAW)
    lowered, (low,) = load(hyp, ref=tmp_path / "ref.en.gz", lowercase=True)
    assert low.texts == lowered.references == [line.lower() for line in RAW]
    assert any("--src" in note for note in lowered.notes)


def test_the_language_comes_from_the_log(write):
    named = [f"INFO | [{lang}] dictionary: 8 types" for lang in ("de", "fr")]
    test_set, (system,) = load(write("gen.out", [*named, *log(["l&apos; eau"] * 2, MOSES)]))
    assert test_set.language == "fr" and system.texts[0] == "l'eau"


def test_the_language_comes_from_the_reference(write):
    path = write("gen.out", log(MOSES, MOSES))
    for name, language in (("test.en", "en"), ("test.en_GB", "en"), ("test.en-US", "en")):
        assert load(path, ref=write(name, RAW))[0].language == language
    with pytest.raises(UserError, match="--target-lang"):
        load(path, ref=write("test.raw", RAW))


@pytest.mark.parametrize("code", ["fr_FR", "fr-CA", "FR", "fr"])
def test_the_region_of_a_language_is_ignored(write, code):
    lines = log(["l&apos; eau"] * 2, MOSES)
    named = [f"INFO | [{lang}] dictionary: 8 types" for lang in ("de-AT", code)]
    for test_set, (system,) in (
        load(write("gen.out", [*named, *lines])),
        load(write("bare.out", lines), language=code),
    ):
        assert test_set.language == "fr" and system.texts[0] == "l'eau"


def test_a_run_that_was_cut_short_is_noted(write):
    test_set, _ = load(write("gen.out", log(MOSES, MOSES)[:-1]), language="en")
    assert any("lacks the last line of a complete run" in note for note in test_set.notes)


@pytest.mark.parametrize(
    "files, options, said",
    [
        ({"path": []}, {}, "path: the file is empty"),
        ({"path": RAW}, {}, "plain file: give its references with --ref"),
        ({"path": RAW, "ref": RAW[:1]}, {}, "path has 2 lines and .*ref has 1 sentences"),
        ({"path": RAW, "ref": []}, {}, "ref: the file is empty"),
        ({"path": RAW, "ref": RAW, "src": RAW[:1]}, {}, "src has 1 lines"),
        ({"path": RAW, "ref": RAW, "baseline": RAW * 2}, {}, "baseline has 4 lines"),
        ({"path": RAW, "ref": RAW}, {"language": None}, "--target-lang"),
        ({"path": log(MOSES, MOSES), "ref": RAW * 2}, {}, "2 of 4 sentences are missing"),
        ({"path": [x for x in log(MOSES, MOSES) if x[0] != "T"]}, {}, "no T-lines.*--ref"),
        ({"path": [x for x in log(MOSES, MOSES) if x[:3] != "T-0"]}, {}, "only 1 of 2 .*T-line"),
        (
            {"path": [x for x in log(MOSES, MOSES) if x[:3] != "H-0"]},
            {},
            "1 of 2 .*first of them 0",
        ),
        ({"path": [x for x in log(MOSES, MOSES) if x[0] == "S"]}, {}, "without --quiet"),
        (
            {"path": log(MOSES, MOSES), "baseline": log(MOSES, ["Other .", "Ones ."])},
            {},
            "baseline: the references of 2 of 2 sentences .* differ",
        ),
        (
            {"path": log(MOSES, ["Other .", "Ones ."]), "ref": RAW},
            {},
            "path: the references of 2 of 2 sentences .* of one test set",
        ),
        (
            {"path": log(MOSES, ["<<unk>> .", "Other ."]), "ref": RAW},
            {},
            "path: the references of 1 of 1 sentences",
        ),
        (
            {"path": log(MOSES, MOSES), "ref": RAW, "src": ["other", "lines"]},
            {},
            "--src .*src: the sources of 2 of 2 sentences .*S-lines of .*path.* one test set",
        ),
    ],
)
def test_files_that_do_not_belong_together_are_refused(write, files, options, said):
    paths = {name: write(name, lines) for name, lines in files.items()}
    with pytest.raises(UserError, match=said):
        load(**paths, **({"language": "en"} | options))


def test_references_are_recognised_in_another_form(write):
    detokenised = write("b", log(MOSES, RAW, detokenised=RAW))
    _, systems = load(write("a", log(MOSES, MOSES)), baseline=detokenised, language="en")
    assert systems[0].texts == systems[1].texts


def test_references_with_unknown_words_are_not_compared(write):
    lost = write("b", log(MOSES, ["It <<unk>> .", "<<unk>> ."]))
    whole = write("a", log(MOSES, MOSES))
    for one, other in ((whole, lost), (lost, whole)):
        _, systems = load(one, baseline=other, language="en")
        assert [system.name for system in systems] == [one.name, other.name]


def test_references_are_recognised_with_hyphens_not_split(write):
    whole = [line.replace(" @-@ ", "-") for line in MOSES]
    path = write("gen.out", log(whole, whole))
    for ref in (RAW, [line.upper() for line in RAW]):
        assert load(path, ref=write("ref", ref), language="en")[0].references == ref


def test_files_of_the_same_name_are_shown_with_their_folders(write, tmp_path):
    (tmp_path / "other").mkdir()
    a, b = write("gen.out", log(MOSES, MOSES)), write("other/gen.out", log(MOSES, MOSES))
    _, systems = load(a, baseline=b, language="en")
    assert [system.name for system in systems] == [str(a), str(b)]


def test_the_language_is_that_of_the_pipeline_near_the_log(write, tmp_path):
    path = write("gen.out", log(MOSES, MOSES))
    with pytest.raises(UserError, match="the target language is unknown"):
        load(path)
    pipeline.save(pipeline.Pipeline("de", "en_GB"), tmp_path / "out" / "data-bin")
    test_set, (system,) = load(path)
    assert test_set.language == "en" and system.texts == RAW
    (note,) = (note for note in test_set.notes if "pipeline.json" in note)
    assert note.startswith("target language en_GB: from ") and "out/data-bin" in note
    assert load(path, language="de")[0].language == "de"
    pipeline.save(pipeline.Pipeline("de", "fr"), tmp_path / "checkpoints")
    with pytest.raises(UserError, match="the target language is unknown"):  # which of the two?
        load(path)
