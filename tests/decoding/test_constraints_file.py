"""The file of --constraints-file: what lines mean, what is refused, and who reads which line."""

import pytest
import torch

from difformer_plugin.decoding.constraints import Constraint, encoder, read_constraints
from difformer_plugin.decoding.generator import DiffusionGenerator
from difformer_plugin.decoding.options import DecodingOptions
from difformer_plugin.errors import UserError

BOS, EOS = 0, 2


@pytest.fixture
def read(task, tmp_path):
    def read(text):
        path = tmp_path / "c.jsonl"
        path.write_text(text, "utf-8")
        return read_constraints(path, encoder(task.target_dictionary))

    return read


def test_lines_are_constraints(read, task):
    index = task.target_dictionary.index
    found = read(
        '{"prefix": "t1 t2", "suffix": "t4", "anywhere": ["t5  t6@@", ""], "ordered": true}\n\n{}'
    )
    first = Constraint(
        (index("t1"), index("t2")), ((index("t5"), index("t6@@")),), (index("t4"),), True
    )
    assert found == [first, Constraint(), Constraint()]
    assert first.least_length == 7 and not found[1].gives_something


@pytest.mark.parametrize(
    "text, said",
    [
        ("\n[1]\n", "c.jsonl, line 2: not a JSON object"),
        ('{"prefix": "t1"\n', "line 1: not JSON"),
        ('{"prefix": "t1 t6"}', "line 1: 't6' is not a subword"),
        ('{"suffix": "<unk>"}', "'<unk>' is not a subword"),
        ('{"suffix": "</s>"}', "'</s>' is not a subword"),
        ('{"anywhere": "t1"}', "anywhere must be a list of texts"),
        ('{"anywhere": [1]}', "anywhere must be a list of texts"),
        ('{"prefix": ["t1"]}', "prefix must be text"),
        ('{"prefixes": "t1"}', "prefix, suffix, anywhere, ordered and nothing else"),
        ('{"prefix": "t1", "prefix": "t2"}', "occurs twice"),
        ('{"anywhere": ["t1","t1","t1","t1","t1","t1","t1","t1","t1","t1","t1"]}', "at most 10"),
    ],
)
def test_lines_that_cannot_be(read, text, said):
    with pytest.raises(UserError, match=said) as error:
        read(text)
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there(task, tmp_path):
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(UserError, match="--constraints-file"):
            read_constraints(path, encoder(task.target_dictionary))


def test_the_generator_reads_its_line(build, task, tmp_path, sentences):
    path = tmp_path / "c.jsonl"
    path.write_text('\n{"prefix": "t1 t2"}\n{"suffix": "t4"}\n')
    options = DecodingOptions(decoding_steps=3, constraints_file=str(path))
    generator = DiffusionGenerator(task.target_dictionary, options, 1)
    sample = {"net_input": {"src_tokens": sentences([4, 3])}, "id": torch.tensor([2, 1])}
    (last,), (first,) = generator.generate([build()], sample)
    index = task.target_dictionary.index
    assert last["tokens"].tolist()[-2:] == [index("t4"), EOS]
    assert first["tokens"].tolist()[:3] == [BOS, index("t1"), index("t2")]
    sample["id"] = torch.tensor([2, 3])
    with pytest.raises(UserError, match="3 lines, and none for sentence 3"):
        generator.generate([build()], sample)
