"""Options of fairseq's commands with our task: refused, warned of, or taken as they are."""

import argparse
import logging

import pytest
from fairseq import options
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from hypothesis import given, settings
from hypothesis import strategies as st

import difformer_plugin
from difformer_plugin.errors import UserError
from difformer_plugin.fairseq_patches import checked_options
from difformer_plugin.options import flag
from difformer_plugin.tasks import option_values
from difformer_plugin.tasks.fairseq_options import ALL, Verdict, rules_of

PARSERS = {
    "train": options.get_training_parser,
    "validate": options.get_validation_parser,
    "generate": options.get_generation_parser,
    "interactive": options.get_interactive_generation_parser,
}
MODEL = ["--arch", "difformer_tiny", "--criterion", "difformer_loss", "--max-tokens", "512"]
NEEDED = {"train": MODEL, "validate": ["--path", "a.pt", "--batch-size", "8"]}


@pytest.fixture(scope="module", autouse=True)
def registered():
    difformer_plugin.register()


@pytest.fixture(autouse=True)
def fresh_warnings():
    checked_options._warn.cache_clear()


def parse(command, *arguments, task="diffusion_translation"):
    needed = NEEDED.get(command, ["--path", "a.pt"]) if task == "diffusion_translation" else []
    words = ["bin", "--task", task, *needed, *map(str, arguments)]
    return options.parse_args_and_arch(PARSERS[command](), words)


def actions(command):
    """The options of a command as argparse knows them, by name."""
    parser, seen = PARSERS[command](), {}
    original = argparse.ArgumentParser.parse_args

    def remember(self, *args):
        seen.update({action.dest: action for action in self._actions})
        return original(self, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", remember)
        words = ["bin", "--task", "diffusion_translation", *NEEDED.get(command, ["--path", "a.pt"])]
        options.parse_args_and_arch(parser, words)
    return seen


def other_value(action):
    """Arguments that give an option another value than its default."""
    if action.nargs == 0:
        return [action.option_strings[0]]
    choices = [choice for choice in action.choices or () if choice != action.default]
    number = 7 if action.default in (None, "") else action.default
    text = choices[0] if choices else number + 1 if action.type in (int, float) else "7"
    return [action.option_strings[0], text]


@pytest.mark.parametrize("command", ALL)
def test_every_option_of_the_table_is_refused_or_warned_of(command, caplog):
    known = actions(command)
    for name, rule in rules_of(command):
        if rule.verdict is Verdict.REFUSED:
            with pytest.raises(UserError, match=f"^{flag(name)} is not available"):
                parse(command, *other_value(known[name]))
        elif rule.verdict is Verdict.NO_EFFECT and name not in ("task", "data"):
            caplog.clear()
            checked_options._warn.cache_clear()
            try:
                parse(command, *other_value(known[name]))
            except UserError as error:  # --bpe has no file, and --tokenizer no languages
                assert name == "bpe" or "bin: no such data folder" in str(error)
            (record,) = caplog.records
            assert record.levelno == logging.WARNING and flag(name) in record.message


@pytest.mark.parametrize("command", ALL)
def test_defaults_are_not_refused(command, caplog):
    """As scripts that name every option give them."""
    known, words = actions(command), []
    for name, rule in rules_of(command):
        action = known[name]
        if rule.verdict is Verdict.REFUSED and action.nargs != 0 and action.default is not None:
            words += [action.option_strings[0], action.default]
    assert parse(command, *words)
    assert not caplog.records


def test_other_tasks_keep_their_options(caplog):
    args = parse("generate", "--replace-unk", "--beam", 9, "--num-shards", 3, task="translation")
    assert args.beam == 9 and args.replace_unk is not None
    assert args.distributed_world_size == 1
    assert not caplog.records


def test_a_warning_comes_once(caplog):
    for _ in range(2):
        parse("generate", "--beam", 9, "--lenpen", 2, "--unkpen", 1)
    messages = [record.message for record in caplog.records]
    assert len(messages) == 2
    assert any("--beam" in m and "--length-beam-size" in m for m in messages)
    assert any("--lenpen, --unkpen" in m for m in messages)


def test_options_without_effect_have_none():
    """fairseq would look for the options of this optimizer, and batch by the buckets."""
    needless = ["--num-batch-buckets", 2, "--optimizer", "sgd", "--lr-scheduler", "cosine"]
    given = parse("generate", *needless, "--beam", 9, "--max-tokens", 99)
    default = parse("generate")
    for name in ("num_batch_buckets", "optimizer", "lr_scheduler", "beam"):
        assert vars(given)[name] == vars(default)[name], name
    whole, other = (convert_namespace_to_omegaconf(each) for each in (given, default))
    assert given.max_tokens == 99 and whole.optimizer == other.optimizer
    assert whole.lr_scheduler == other.lr_scheduler
    parser, words = PARSERS["validate"](), ["bin", "--task", "diffusion_translation", "--path", "a"]
    words += ["--batch-size", "8", "--num-batch-buckets", "2"]
    overrides = options.parse_args_and_arch(parser, words, suppress_defaults=True)
    assert overrides.batch_size == 8 and "num_batch_buckets" not in overrides


def test_shards_are_what_fairseq_divides_batches_by():
    args = parse("generate", "--num-shards", 3, "--shard-id", 2)
    assert (args.distributed_world_size, args.distributed_rank) == (3, 2)


def test_shards_do_not_replace_each_others_results(tmp_path, monkeypatch):
    words = ["fairseq-generate", "bin", "--task", "diffusion_translation", "--path", "a.pt"]

    def start(shard, folder, shards=2):
        checked_options._reserve.cache_clear()  # as in a process of its own
        own = ["--num-shards", shards, "--shard-id", shard, "--results-path", folder]
        monkeypatch.setattr("sys.argv", [*words, *map(str, own)])
        return options.parse_args_and_arch(PARSERS["generate"]())

    start(0, tmp_path / "a")
    with pytest.raises(UserError, match=r"a/generate-test\.txt exists.*a folder of its own"):
        start(1, tmp_path / "a")
    assert start(1, tmp_path / "b").results_path == str(tmp_path / "b")
    start(0, tmp_path / "a", shards=1)  # a whole run replaces its results, as in fairseq


def test_only_empty_results_are_removed_at_the_end(tmp_path):
    empty, written = tmp_path / "empty", tmp_path / "written"
    empty.touch()
    written.write_text("S-0\ta\n")
    for path in (empty, written, tmp_path / "missing"):
        checked_options._remove_empty(str(path))
    assert [path.name for path in tmp_path.iterdir()] == ["written"]
    assert written.read_text() == "S-0\ta\n"


@pytest.mark.parametrize(
    "command, arguments, said",
    [
        ("generate", ["--num-shards", 3, "--shard-id", 3], "--shard-id must lie between 0 and 2"),
        ("generate", ["--num-shards", 2, "--shard-id", -1], "--shard-id"),
        ("generate", ["--num-shards", 0], "--num-shards must be at least 1"),
        ("generate", ["--model-overrides", "{'a'"], "--model-overrides must be a dictionary"),
        ("generate", ["--model-overrides", "7"], "--model-overrides must be a dictionary"),
        ("generate", ["--post-process", "nonsense"], "--post-process 'nonsense' is unknown"),
        ("generate", ["--bpe", "subword_nmt"], "--bpe subword_nmt needs --bpe-codes"),
        ("generate", ["--bpe", "sentencepiece"], "needs --sentencepiece-model"),
        ("generate", ["--bpe", "byte_bpe"], "needs --sentencepiece-model-path"),
        ("interactive", ["--bpe", "hf_byte_bpe"], "needs --bpe-merges"),
        ("generate", ["--bpe", "fastbpe", "--bpe-codes", "none"], "--bpe-codes none: no such file"),
        ("generate", ["--seed", -1], "--seed must lie between 0 and 4294967295"),
        ("generate", ["--max-tokens", 0], "--max-tokens must be at least 1"),
        ("generate", ["--path", ""], "needs --path"),
        ("interactive", ["--path", ""], "needs --path"),
        ("interactive", ["--batch-size", 5, "--buffer-size", 4], "give --buffer-size 5"),
        ("validate", ["--batch-size", 0], "--batch-size"),
        ("train", ["--lr", ""], "--lr must be one number"),
        ("train", ["--lr", "1e-3,-1"], "--lr must be one number"),
        ("train", ["--update-freq", "1,0"], "--update-freq must be"),
        ("train", ["--optimizer", "adam", "--adam-betas", "(0.9"], "--adam-betas must be two"),
        ("train", ["--optimizer", "adam", "--adam-betas", "(0.9,)"], "--adam-betas must be two"),
        ("train", ["--optimizer-overrides", "lr=1"], "--optimizer-overrides must be a dictionary"),
        ("train", ["--ddp-backend", "slowmo"], "--ddp-backend slowmo needs fairscale"),
        ("train", ["--ema-decay", 1.5], "--ema-decay must lie between 0 and 1"),
        ("train", ["--save-interval", 0], "--save-interval must be at least 1"),
        ("train", ["--clip-norm", "nan"], "--clip-norm must be at least 0"),
        ("train", ["--eval-bleu-detok", "none"], "--eval-bleu-detok none: no such tokeniser"),
        ("train", ["--eval-bleu-remove-bpe", "x"], "--eval-bleu-remove-bpe 'x' is unknown"),
        ("train", ["--constraints-file", "x"], "--constraints-file is not available in fairseq-tr"),
        ("validate", ["--history-file", "x"], "not available in fairseq-validate.*-generate"),
        ("train", ["--distributed-port", 9], "--distributed-port is for Slurm"),
        ("interactive", ["--input", "none"], "--input none: no such file"),
    ],
)
def test_values_that_fairseq_would_trip_over(command, arguments, said):
    with pytest.raises(UserError, match=f"^[^\n]*{said}[^\n]*$"):
        parse(command, *arguments)


@pytest.mark.parametrize(
    "command, warned",
    [
        ("train", "--eval-bleu-args, --eval-bleu-print-samples"),
        ("validate", "--decoding-steps, --eval-bleu-args, --eval-bleu-print-samples"),
    ],
)
def test_options_that_need_eval_bleu(command, warned, caplog):
    needing = [
        "--eval-bleu-args",
        '{"seed": 1}',
        "--eval-bleu-print-samples",
        "--decoding-steps",
        5,
    ]
    assert parse(command, *needing, "--eval-bleu").decoding_steps == 5
    assert not caplog.records
    parse(command, *needing)
    assert [r.message for r in caplog.records] == [f"no effect without --eval-bleu: {warned}"]


def test_a_meeting_place_without_gpus(monkeypatch):
    """fairseq starts a process for each GPU: it ended well and had done nothing."""
    place = ["--distributed-init-method", "tcp://localhost:1"]
    for command in ("train", "validate"):
        monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
        with pytest.raises(UserError, match="--distributed-init-method.*has none.*torchrun"):
            parse(command, *place)
        assert parse(command, *place, "--distributed-no-spawn")
        monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
        assert parse(command, *place)


def test_more_processes_than_gpus(monkeypatch):
    for name in ("WORLD_SIZE", "SLURM_JOB_ID", "SLURM_STEP_NODELIST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    with pytest.raises(UserError, match="--distributed-world-size 2.*torchrun"):
        parse("train", "--distributed-world-size", 2)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert parse("train", "--distributed-world-size", 2).distributed_world_size == 2


def test_files_of_subwords_that_are_there(tmp_path):
    (tmp_path / "codes").touch()
    codes = ["--bpe", "subword_nmt", "--bpe-codes", tmp_path / "codes"]
    assert parse("generate", *codes).bpe == "subword_nmt"


@pytest.mark.parametrize("stdin", [None, object()])
def test_the_input_of_fairseq_interactive(tmp_path, monkeypatch, stdin):
    monkeypatch.setattr("sys.stdin", stdin)
    (tmp_path / "input").write_bytes("Füße\r\n\x85\u2028\n".encode() + b"Fl\xfc gel\n")
    with pytest.raises(UserError, match=r"input, line 3: not UTF-8 \(invalid .*with iconv"):
        parse("interactive", "--input", tmp_path / "input")
    (tmp_path / "input").write_bytes("Füße\n".encode())
    parse("interactive", "--input", tmp_path / "input")
    if stdin is None:
        with pytest.raises(UserError, match="the standard input is closed: give --input FILE"):
            parse("interactive")
    else:
        parse("interactive")


def test_a_folder_of_results_that_is_a_file(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="--results-path .*file is a file: give a folder"):
        parse("generate", "--results-path", tmp_path / "file")
    parse("generate", "--results-path", tmp_path / "new")


def test_packages_that_are_missing(monkeypatch):
    monkeypatch.setattr(option_values, "find_spec", lambda name: None)
    for arguments, said in (
        (["--scoring", "wer"], "--scoring wer needs a package: pip install editdistance"),
        (["--bpe", "bert"], "--bpe bert needs a package: pip install transformers"),
        (["--tokenizer", "nltk", "-s", "de", "-t", "en"], "pip install nltk"),
    ):
        with pytest.raises(UserError, match=said):
            parse("generate", *arguments)
    with pytest.raises(UserError, match="--write-checkpoints-asynchronously needs a package"):
        parse("train", "--write-checkpoints-asynchronously")


VALUES = st.text(st.characters(exclude_characters="\x00"), max_size=12) | st.sampled_from(
    ["", "0", "-1", "1e999", "nan", "[", "{}", "(0.9, 0.98)", "1,2", "None", "x" * 3]
)


@settings(max_examples=60)
@given(st.data())
def test_any_value_is_taken_or_refused_in_one_line(data):
    command = data.draw(st.sampled_from(ALL))
    known = KNOWN.setdefault(command, actions(command))
    name = data.draw(st.sampled_from(sorted(n for n in known if n not in ("help", "user_dir"))))
    action, value = known[name], data.draw(VALUES)
    if not action.option_strings or action.nargs == 0:
        return
    try:
        parse(command, f"{max(action.option_strings, key=len)}={value}")
    except UserError as error:
        assert "\n" not in str(error)
    except SystemExit as stop:
        assert stop.code == 2  # argparse has named the option


KNOWN = {}
