import torch
from fairseq.sequence_generator import SequenceGenerator

from difformer_plugin.bench.lengths import ReferenceLengths, References, ReferenceSearch
from difformer_plugin.decoding.candidates import length_beam
from difformer_plugin.networks.layers import Memory


def test_a_beam_of_lengths_lies_around_the_references():
    references = References(torch.tensor([3, 20, 9, 300]))
    references.aim(torch.tensor([3, 1, 2]))
    predictor = ReferenceLengths(references)
    memory = Memory(torch.zeros(3, 4, 8), torch.ones(3, 4, dtype=torch.bool))
    beam = length_beam(predictor(memory), predictor.lengths(memory), 5, longest=1000)
    for own, subwords in zip(beam.tolist(), (300, 20, 9)):
        assert own[0] == subwords + 2  # with BOS and EOS
        assert sorted(own) == list(range(subwords, subwords + 5))


def test_beam_search_ends_where_the_reference_does(teacher, task, sentences):
    subwords = torch.tensor([4, 1, 9, 6])
    numbers = torch.tensor([2, 0, 1])
    dictionary = task.target_dictionary
    search = ReferenceSearch(dictionary, References(subwords))
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
            assert len(tokens) == subwords[number] + 1
            assert tokens.index(dictionary.eos()) == len(tokens) - 1
            assert hypothesis["score"].isfinite()


def test_until_then_it_is_fairseqs_own(teacher, task, sentences):
    """Told the lengths at which the best of plain beam search ends, it finds that one again."""
    dictionary, source = task.target_dictionary, sentences([5])[:, 1:]
    lengths = source.ne(task.source_dictionary.pad()).sum(1)
    sample = {
        "id": torch.tensor([0]),
        "net_input": {"src_tokens": source, "src_lengths": lengths},
    }
    free = SequenceGenerator([teacher], dictionary, beam_size=1, max_len_b=6)
    (best,) = free.generate([teacher], sample)[0]
    references = References(torch.tensor([len(best["tokens"]) - 1]))
    search = ReferenceSearch(dictionary, references)
    forced = SequenceGenerator(
        [teacher], dictionary, beam_size=1, max_len_b=30, search_strategy=search
    )
    (found,) = forced.generate([teacher], sample)[0]
    assert found["tokens"].tolist() == best["tokens"].tolist()
