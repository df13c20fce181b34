"""The command `vitcourse`."""

import argparse
import sys


def doctor(args, rest):
    """vitcourse doctor"""
    from vitcourse.lab import doctor

    return doctor.main()


def lab(args, rest):
    """vitcourse lab"""
    from vitcourse.lab import workspace

    return workspace.open_lab(rest)


COMMANDS = {
    "doctor": (doctor, "examine this computer and say what to mend"),
    "lab": (lab, "open the lessons in JupyterLab; further options go to JupyterLab"),
}


def main(arguments=None):
    """Run one command; a wrong argument gets one line and the exit code 2."""
    parser = argparse.ArgumentParser(prog="vitcourse", description="The Vision Transformer course.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (_, text) in COMMANDS.items():
        commands.add_parser(name, help=text, description=text)
    args, rest = parser.parse_known_args(arguments)
    if rest and args.command != "lab":
        parser.error(f"{args.command} takes no {rest[0]!r}")
    try:
        return COMMANDS[args.command][0](args, rest)
    except (ValueError, OSError) as error:
        print(f"vitcourse: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
