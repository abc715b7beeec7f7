"""What an exported model keeps of the options of its training."""

from dataclasses import asdict
from types import SimpleNamespace

from fairseq.dataclass.configs import FairseqConfig
from omegaconf import OmegaConf

from difformer_plugin.families.embeddings.config import DifformerConfig
from difformer_plugin.networks.config import check_network
from difformer_plugin.translation.export import configuration


def test_what_refines_the_teachers_weights_goes_with_the_teacher():
    """Otherwise the model would be refused when it is loaded."""
    options = {"init_parts": "encoder", "freeze_encoder_updates": 7}
    trained = OmegaConf.to_container(OmegaConf.structured(FairseqConfig()), enum_to_str=True)
    trained["model"] = asdict(DifformerConfig(init_from_teacher="teacher.pt", **options))
    trained["task"] = {}
    model = SimpleNamespace(criterion="difformer_loss")
    loaded = SimpleNamespace(cfg=OmegaConf.create(trained), models=[model], num_updates=3)
    found = configuration(loaded, own_decoding=False)["cfg"]["model"]
    assert found["init_from_teacher"] is None
    check_network(OmegaConf.create(found))
