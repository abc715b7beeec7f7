import torch
from fairseq.sequence_generator import SequenceGenerator

from difformer_plugin.bench.reference_lengths import (
    ReferenceLengthPredictor,
    ReferenceLengths,
    ReferenceSearch,
)
from difformer_plugin.decoding.candidates import length_beam
from difformer_plugin.networks.layers import Memory


def test_a_length_beam_surrounds_the_reference_lengths():
    references = ReferenceLengths(torch.tensor([3, 20, 9, 300]))
    references.select(torch.tensor([3, 1, 2]))
    predictor = ReferenceLengthPredictor(references)
    memory = Memory(torch.zeros(3, 4, 8), torch.ones(3, 4, dtype=torch.bool))
    beam = length_beam(predictor(memory), predictor.lengths(memory), 5, longest=1000)
    for own, length in zip(beam.tolist(), (300, 20, 9)):
        assert own[0] == length + 2  # with BOS and EOS
        assert sorted(own) == list(range(length, length + 5))


def test_beam_search_ends_at_the_reference_length(teacher, task, sentences):
    num_tokens = torch.tensor([4, 1, 9, 6])
    numbers = torch.tensor([2, 0, 1])
    dictionary = task.target_dictionary
    search = ReferenceSearch(dictionary, ReferenceLengths(num_tokens))
    generator = SequenceGenerator(
        [teacher], dictionary, beam_size=3, max_len_b=30, search_strategy=search
    )
    source = sentences([5, 3, 4])[:, 1:]
    lengths = source.ne(task.source_dictionary.pad()).sum(1)
    sample = {"id": numbers, "net_input": {"src_tokens": source, "src_lengths": lengths}}
    found = generator.generate([teacher], sample)
    for number, hypotheses in zip(numbers.tolist(), found):
        assert len(hypotheses) == 3
        for hypothesis in hypotheses:
            tokens = hypothesis["tokens"].tolist()
            assert len(tokens) == num_tokens[number] + 1
            assert tokens.index(dictionary.eos()) == len(tokens) - 1
            assert hypothesis["score"].isfinite()


def test_before_the_reference_length_the_search_is_fairseqs(teacher, task, sentences):
    """Given the length of plain beam search's best hypothesis, it finds the same hypothesis."""
    dictionary, source = task.target_dictionary, sentences([5])[:, 1:]
    lengths = source.ne(task.source_dictionary.pad()).sum(1)
    sample = {
        "id": torch.tensor([0]),
        "net_input": {"src_tokens": source, "src_lengths": lengths},
    }
    free = SequenceGenerator([teacher], dictionary, beam_size=1, max_len_b=6)
    (best,) = free.generate([teacher], sample)[0]
    references = ReferenceLengths(torch.tensor([len(best["tokens"]) - 1]))
    search = ReferenceSearch(dictionary, references)
    forced = SequenceGenerator(
        [teacher], dictionary, beam_size=1, max_len_b=30, search_strategy=search
    )
    (found,) = forced.generate([teacher], sample)[0]
    assert found["tokens"].tolist() == best["tokens"].tolist()
