"""Sentences of a split in batches, for commands that decode without fairseq-generate."""

from fairseq import utils

from difformer_plugin.errors import UserError


def batches(args, dataset, order, device):
    """fairseq's samples of --batch-size sentences each, on the device.

    Args:
        args: of the command: `data`, `gen_subset`, `batch_size`.
        order: the sentences' numbers, (N,).
    Raises:
        UserError: the split has no targets.
    """
    if dataset.tgt is None:
        raise UserError(f"{args.data}: {args.gen_subset} has no targets to score against")
    parts = [order[i : i + args.batch_size] for i in range(0, len(order), args.batch_size)]
    return [
        utils.apply_to_sample(
            lambda tensor: tensor.to(device), dataset.collater([dataset[i] for i in part])
        )
        for part in parts
    ]
