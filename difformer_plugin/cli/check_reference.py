"""`difformer check-reference`: are our numbers those of the authors' implementation?"""


def add_parser(subparsers):
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "check-reference", help="recompute the recorded values of another implementation"
    )
    parser.add_argument(
        "folder", help="a folder with checkpoint.pt, settings.json, expected.npz and data-bin/"
    )
    parser.set_defaults(run=run)


def run(args):
    """Print a row an array; exit status 0 if all of them agree and 1 otherwise."""
    from difformer_plugin import register

    register()
    from difformer_plugin.interop.reference import compare, load_reference, recompute

    *ours, expected = load_reference(args.folder)
    rows = compare(recompute(*ours, expected), expected)
    print(f"{'array':<32}{'shape':<20}{'largest difference':>20}")
    for name, shape, difference, passed in rows:
        print(f"{name:<32}{shape!s:<20}{difference:>20.3g}  {'ok' if passed else 'DIFFERS'}")
    failed = sum(not passed for *_, passed in rows)
    print(f"{len(rows) - failed} of {len(rows)} arrays agree")
    return 1 if failed else 0
