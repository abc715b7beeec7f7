"""The warning of a model that does not read its source: when it is given, and what it costs."""

import pytest
import torch
from fairseq.logging import metrics

from difformer_plugin.families.embeddings.objective import DifformerLoss, DifformerLossConfig
from difformer_plugin.networks.layers import Memory
from difformer_plugin.tasks import source_check
from difformer_plugin.tasks.source_check import SourceCheck, log_source_gain, with_other_sources


def batch(sentences=6):
    generator = torch.Generator().manual_seed(3)
    source = torch.randint(4, 19, (sentences, 7), generator=generator)
    target = torch.randint(4, 24, (sentences, 5), generator=generator)
    lengths = torch.full((sentences,), 7)
    return {"target": target, "net_input": {"src_tokens": source, "src_lengths": lengths}}


@pytest.fixture
def criterion(task):
    return DifformerLoss(DifformerLossConfig(), task)


def train(model, criterion, updates):
    """Train on one batch, which a model that reads its source learns by heart."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(updates):
        optimizer.zero_grad()
        loss, size, _ = criterion(model.train(), batch())
        (loss / size).backward()
        optimizer.step()
    return model.eval()


def blind(model):
    """The model with an encoder whose states are zero."""
    encode = model.encoder.forward

    def forward(src_tokens):
        memory = encode(src_tokens)
        return Memory(torch.zeros_like(memory.states), memory.mask)

    model.encoder.forward = forward
    return model


def ready(updates=source_check.MIN_UPDATES):
    """A check that measures in the next validation, if the updates suffice."""
    check = SourceCheck()
    for update in range(updates - 1, updates + 1):
        check.update(update, 1e-3)
    return check


def validate(check, model, criterion, batches):
    """Validate as fairseq does, and return the meters."""
    check.begin_validation()
    with metrics.aggregate(new_root=True) as meters:
        for sample in batches:
            log_source_gain([check.measure(sample, model, criterion)])
    check.end_validation(meters)
    return meters


def warnings(caplog):
    return [r.getMessage() for r in caplog.records if "hardly reads its source" in r.getMessage()]


def test_a_model_whose_encoder_says_nothing_is_warned_of(build, criterion, caplog):
    model = blind(build())
    train(model, criterion, 30)
    meters = validate(ready(), model, criterion, [batch()])
    assert abs(meters.get_smoothed_values()["source_gain"]) < 0.2
    (message,) = warnings(caplog)
    assert "\n" not in message and "--warmup-updates" in message


def test_a_model_that_reads_is_not_warned_of(build, criterion, caplog):
    model = train(build(), criterion, 150)
    meters = validate(ready(), model, criterion, [batch()])
    assert meters.get_smoothed_values()["source_gain"] > 0.5
    assert not warnings(caplog)


def test_the_losses_are_those_of_the_criterion(build, criterion):
    model, sample = build(), batch()
    meters = validate(ready(), model, criterion, [sample])
    for name, one in ((source_check.OWN, sample), (source_check.OTHER, with_other_sources(sample))):
        _, tokens, logged = criterion(model, one)
        expected = float(logged["mse"] + logged["anchor"]) / tokens
        assert meters[name].avg == pytest.approx(expected, rel=1e-6)


def test_only_sources_are_exchanged():
    sample = batch()
    other = with_other_sources(sample)
    assert other["target"] is sample["target"]
    sources, others = (each["net_input"]["src_tokens"] for each in (sample, other))
    assert torch.equal(others[1:], sources[:-1]) and torch.equal(others[0], sources[-1])


def test_nothing_random_is_drawn_and_nothing_changes(build, criterion):
    model = build()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    first, second = (validate(ready(), model, criterion, [batch()]) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert first[source_check.OTHER].avg == second[source_check.OTHER].avg
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def fake(own, other):
    """A criterion that finds these losses a token, in turn."""
    losses = iter([own, other] * 100)

    def criterion(model, sample):
        return 0, 10, {"diffusion": 10 * next(losses), "length": 1e9}

    criterion.loss_terms, criterion.token_terms = ("diffusion", "length"), ("diffusion", "bound")
    return criterion


def test_it_looks_at_batches_1_2_4_8(build):
    check, seen = ready(), []
    check.begin_validation()
    for number in range(1, 18):
        seen += [number] * bool(check.measure(batch(2), None, fake(1, 2)))
    assert seen == [1, 2, 4, 8, 16]


def test_a_batch_of_one_sentence_counts_nothing(caplog):
    meters = validate(ready(), None, fake(1, 1), [batch(1)])
    assert source_check.OWN not in meters and not warnings(caplog)


def test_no_alarm_before_the_warm_up_is_over(caplog):
    check = SourceCheck()
    for update in range(1000):
        check.update(update, 1e-6 * update)
    assert not validate(check, None, fake(1, 1), [batch()]) and not warnings(caplog)
    check.update(1000, 1e-6 * 999)
    validate(check, None, fake(1, 1), [batch()])
    assert len(warnings(caplog)) == 1


def test_accumulated_gradients_do_not_end_the_warm_up():
    check = SourceCheck()
    for update in range(10):
        for _ in range(4):
            check.update(update, 1e-6 * update)
    assert not check.warm


def test_no_alarm_in_the_first_updates(caplog):
    assert not validate(ready(source_check.MIN_UPDATES - 1), None, fake(1, 1), [batch()])
    assert not warnings(caplog)


def test_it_looks_twice_at_most(caplog):
    check, updates = ready(), source_check.MIN_UPDATES
    for count, measured in ((updates, 1), (updates + 1, 1), (2 * updates, 2), (8 * updates, 2)):
        check.update(count, 1e-3)
        validate(check, None, fake(2, 2.1), [batch()])
        assert len(warnings(caplog)) == measured


def test_a_model_that_reads_is_measured_once():
    check = ready()
    assert validate(check, None, fake(1, 2), [batch()])
    check.update(10 * source_check.MIN_UPDATES, 1e-3)
    assert not validate(check, None, fake(1, 2), [batch()])


def test_further_validation_sets_are_not_measured():
    check = ready()
    assert validate(check, None, fake(1, 1), [batch()])
    assert check.measure(batch(), None, fake(1, 1)) == {}


def test_processes_are_added_up():
    logs = [
        {source_check.OWN: 10.0, source_check.OTHER: 40.0, source_check.TOKENS: 10},
        {source_check.OWN: 0.0, source_check.OTHER: 0.0, source_check.TOKENS: 0},
        {source_check.OWN: 20.0, source_check.OTHER: 20.0, source_check.TOKENS: 20},
    ]
    with metrics.aggregate(new_root=True) as meters:
        log_source_gain(logs)
    assert meters.get_smoothed_values()["source_gain"] == pytest.approx(1.0)


# stopping and resuming


def log_rates(check, first, rates):
    for update, rate in enumerate(rates, first):
        check.update(update, rate)
    return check


@pytest.mark.parametrize("stop", range(1, 6))
def test_a_check_that_resumes_is_as_one_that_did_not_stop(stop):
    rates = [1e-3, 2e-3, 3e-3, 3e-3, 2e-3, 1e-3]
    whole = log_rates(SourceCheck(), 500, rates)
    resumed = SourceCheck()
    resumed.resume(log_rates(SourceCheck(), 500, rates[:stop]).state())
    log_rates(resumed, 500 + stop, rates[stop:])
    assert resumed.state() == whole.state()
    assert resumed.warm


def test_a_reset_optimizer_counts_anew():
    check = ready()
    check.due = None  # it has measured
    check.update(0, 1e-3)
    assert check.state() == log_rates(SourceCheck(), 0, [1e-3]).state()
    assert not check.warm and check.due == source_check.MIN_UPDATES
