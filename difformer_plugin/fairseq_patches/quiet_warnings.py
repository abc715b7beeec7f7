"""fairseq's commands begin with their own output, not with warnings about fairseq's code.

Fault: fairseq calls functions of hydra and torch in ways that these have deprecated, and asks for
pinned memory on machines without a GPU. Every command prints twenty lines about it.

Patch: these warnings are ignored. The filters come last, so that `python -W` and PYTHONWARNINGS
have their say, and warnings that other code causes are shown as before.

Other tasks: their commands are as quiet.

Drop it: when fairseq uses the current functions. The warning of `fairseq-hydra-train` comes before
`--user-dir` is read, and stays.
"""

import warnings

# How the texts of warnings begin.
OF_HYDRA = (
    r"hydra\.experimental\.(initialize|compose)\(\) is no longer experimental",
    r"\s*The version_base parameter is not specified",
    r"\s*In '.*': Usage of deprecated keyword in package header",
    r"\s*'config' is validated against ConfigStore schema with the same name",
    r"\s*The strict flag in the compose API is deprecated",
)
OF_TORCH = (r"'pin_memory' argument is set as true but no accelerator is found",)
MODULES = r"fairseq(_cli)?(\.|$)"  # what else torch has deprecated, where fairseq uses it


def install() -> None:
    """Add the filters."""
    for message in OF_HYDRA + OF_TORCH:
        warnings.filterwarnings("ignore", message, UserWarning, append=True)
    warnings.filterwarnings("ignore", category=FutureWarning, module=MODULES, append=True)
