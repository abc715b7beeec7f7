"""Keep the text pipeline of the training data beside the checkpoints (`data.pipeline`)."""

import logging
from typing import Any

from fairseq import utils
from fairseq.distributed.utils import get_global_rank

from difformer_plugin.data.pipeline import copy_with_dictionaries
from difformer_plugin.errors import UserError

logger = logging.getLogger(__name__)


def keep_pipeline(cfg: Any) -> None:
    """Copy `pipeline.json`, its subwords and the dictionaries of the first data-bin to --save-dir.

    Nothing is copied with --no-save, or if the data-bin has no pipeline. Files that are there and
    belong to no pipeline are left alone, with a warning.

    Args:
        cfg: the task's configuration.
    """
    if cfg.no_save or get_global_rank() != 0:
        return
    try:
        langs = cfg.source_lang, cfg.target_lang
        copy_with_dictionaries(utils.split_paths(cfg.data)[0], cfg.save_dir, langs)
    except (UserError, OSError) as error:
        logger.warning(f"no pipeline.json beside the checkpoints: {error}")
