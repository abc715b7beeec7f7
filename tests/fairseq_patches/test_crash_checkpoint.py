"""When fairseq's trainer writes crash.pt."""

from unittest import mock

import pytest
from fairseq.trainer import Trainer

from difformer_plugin.errors import UserError
from difformer_plugin.fairseq_patches.crash_checkpoint import _unless_a_mistake


@pytest.mark.parametrize("error, written", [(UserError, []), (KeyError, ["save/crash.pt"])])
def test_a_mistake_leaves_no_file(error, written):
    files = []
    save = _unless_a_mistake(lambda trainer, filename, extra_state: files.append(filename))
    trainer = mock.MagicMock(data_parallel_world_size=1)
    trainer.cfg.checkpoint.save_dir = "save"
    trainer._prepare_sample.return_value = {}, False
    trainer.task.train_step.side_effect = error("a sentence is damaged")
    trainer.save_checkpoint = lambda *args: save(trainer, *args)
    with pytest.raises(error, match="damaged"):
        Trainer.train_step(trainer, [{}])
    assert files == written
    trainer.save_checkpoint("save/checkpoint1.pt", {})
    assert files[-1] == "save/checkpoint1.pt"
