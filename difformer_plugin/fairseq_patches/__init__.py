"""What do we mend in fairseq? A file a fault: what is wrong, what we do, when to drop the patch.

The patches change fairseq for the whole process, hence also for tasks that are not ours. Each file
says what that means for them.
"""

from functools import cache

from difformer_plugin.fairseq_patches import (
    atomic_saving,
    batch_buckets,
    checked_options,
    cpu_distributed,
    cpu_precision,
    crash_checkpoint,
    early_stopping,
    ema_loading,
    ema_tied_weights,
    error_lines,
    exported_models,
    foreign_tasks,
    hydra_options,
    levenshtein_library,
    loader_thread,
    quiet_warnings,
    resuming,
    safe_loading,
    valid_subsets,
)

PATCHES = (
    quiet_warnings,
    safe_loading,
    atomic_saving,
    cpu_precision,
    cpu_distributed,
    ema_loading,
    ema_tied_weights,
    error_lines,
    exported_models,
    foreign_tasks,
    levenshtein_library,
    resuming,
    early_stopping,
    crash_checkpoint,
    loader_thread,
    batch_buckets,
    valid_subsets,
    checked_options,
    hydra_options,
)


@cache
def install() -> None:
    """Install all patches. Calling it again does nothing."""
    for patch in PATCHES:
        patch.install()
