"""`difformer convert`: a checkpoint of the authors' implementation becomes one of ours."""


def add_parser(subparsers):
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "convert", help="turn a checkpoint of the authors' implementation into one of this one"
    )
    parser.add_argument("input", metavar="IN", help="their checkpoint")
    parser.add_argument("output", metavar="OUT", help="where to write ours")
    parser.set_defaults(run=run)


def run(args):
    """Convert, without running code from the checkpoint, and write atomically."""
    from difformer_plugin import register

    register()
    from difformer_plugin.checkpoints.saving import save_atomically
    from difformer_plugin.interop.conversion import convert_checkpoint

    checkpoint = convert_checkpoint(args.input)
    save_atomically(checkpoint, args.output)
    print(f"{args.output}: {len(checkpoint['model'])} weights converted")
    return 0
