"""What all models share about their weights: what is derived from them, loading, and the hub."""

import logging
from typing import Any

import torch
from fairseq.models import BaseFairseqModel

from difformer_plugin.checkpoints.fingerprint import KEY, check_dictionaries, fingerprint
from difformer_plugin.decoding.hub import TranslationHub, load_hub
from difformer_plugin.errors import UserError

logger = logging.getLogger(__name__)
NO_SOURCE = "no_source"  # the parameter that is read in place of an absent source


class LoadableModel(BaseFairseqModel):
    """A model whose weights belong to two dictionaries.

    Args:
        cfg: a DenoiserConfig.
        dictionaries: of source and target.

    Attributes:
        derived: what decoding has made of the weights: denoisers in other precisions, and CUDA
            graphs. It is cleared when the weights change.
    """

    def __init__(self, cfg: Any, dictionaries: tuple[Any, Any]):
        super().__init__()
        self.cfg = cfg
        self.derived: dict[Any, Any] = {}
        self.register_buffer(KEY, torch.tensor([fingerprint(d) for d in dictionaries]))

    def train(self, mode: bool = True) -> "LoadableModel":
        """Switch between training and evaluation; training changes the weights.

        fairseq calls `eval()` before each batch of validation, which changes nothing.
        """
        if mode or self.training:
            self.derived.clear()
        return super().train(mode)

    def _apply(self, *args: Any, **kwargs: Any) -> "LoadableModel":
        self.derived.clear()
        return super()._apply(*args, **kwargs)

    def max_positions(self) -> tuple[int, int]:
        """The longest source and target, in tokens, with their frame."""
        return self.cfg.max_source_positions, self.cfg.max_target_positions

    def learn_absent_sources(self) -> None:
        """Let training begin from weights that were trained without --source-dropout.

        They lack the parameter that is read in place of an absent source, which then starts at
        zero, as in a new model.
        """
        fresh = {
            name: parameter
            for name, parameter in self.named_parameters()
            if name.split(".")[-1] == NO_SOURCE
        }

        def fill(module: Any, state: dict[str, Any], *unused: Any) -> None:
            for name in fresh.keys() - state.keys():
                logger.info(f"{name} starts at 0: the weights are from before --source-dropout")
                state[name] = torch.zeros_like(fresh[name])

        self.register_load_state_dict_pre_hook(fill)

    def complete(self, state: dict[str, Any]) -> dict[str, Any]:
        """A state dict of an older version, with what it lacks."""
        return state

    def load_state_dict(
        self,
        state_dict: dict[str, Any],
        strict: bool = True,
        model_cfg: Any = None,
        args: Any = None,
    ) -> Any:
        """Load weights after checking that they belong to these dictionaries.

        Raises:
            UserError: they are of other dictionaries, or of another model.
        """
        self.derived.clear()
        state_dict = self.complete(check_dictionaries(self, state_dict))
        try:
            return super().load_state_dict(state_dict, strict, model_cfg, args)
        except RuntimeError as error:
            _, *details = str(error).splitlines()
            raise UserError(
                "the checkpoint's weights do not fit this model; give the model options that it "
                f"was trained with ({' '.join(details)[:300].strip()} ...)"
            ) from error

    @classmethod
    def from_pretrained(
        cls,
        model_name_or_path: str,
        checkpoint_file: str = "model.pt",
        data_name_or_path: str = ".",
        pipeline: bool = True,
        **kwargs: Any,
    ) -> TranslationHub:
        """fairseq's hub interface, with the languages, tokeniser and subwords of the data.

        Args:
            model_name_or_path: a folder; checkpoint_file: a file in it. If there is no `model.pt`,
                see `checkpoints.model_folder.find_weights`.
            data_name_or_path: the data-bin, relative to the folder if it begins with a dot.
            pipeline: translate raw text as `pipeline.json`, in the data-bin or in the folder, says;
                not if `tokenizer` or `bpe` is given.
            kwargs: options of the task, the tokeniser and the subwords, `source_lang` and
                `target_lang` included.
        Raises:
            UserError: a file is missing or damaged, or an option is unknown.
        """
        archives = cls.hub_models()
        return load_hub(
            model_name_or_path, checkpoint_file, data_name_or_path, archives, pipeline, kwargs
        )

    @classmethod
    def hub_models(cls) -> dict[str, Any]:
        """Empty: no checkpoints are published under a name; `from_pretrained` takes a folder."""
        return {}
