"""The command line. Commands are loaded when they are called, so that `matchd` starts quickly."""

import importlib
import sys

import click

from engine import __version__
from engine.cli import output
from engine.errors import EXIT_CONFIG, EXIT_OTHER, ConfigError, EngineError

# Interrupted, as shells count it: 128 + SIGINT.
EXIT_INTERRUPTED = 130

COMMANDS = {
    "run": "venue",
    "reload": "venue",
    "check-config": "venue",
    "hash-password": "venue",
    "submit": "orders",
    "cancel": "orders",
    "watch": "watch",
    "top": "top",
    "book": "book",
    "session": "session",
    "key": "key",
    "replay": "replay",
    "journal": "journal",
    "store": "store",
    "peers": "peers",
    "export": "export",
}


class LazyGroup(click.Group):
    """A group whose commands stand in modules that are imported at the first use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands in the order of a day's work."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of this name, or None."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"engine.cli.{COMMANDS[cmd_name]}")
        command: click.Command = getattr(module, cmd_name.replace("-", "_"))
        return command


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="%(prog)s %(version)s")
def matchd() -> None:
    """A trading venue in one process: SoupBinTCP and OUCH 5.0 in, price-time matching, durable.

    \b
    Example: matchd run
             matchd submit MAKER1 buy BTC-USDT 0.5 60000 --password demo
             matchd book BTC-USDT
    """


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its code. An error is one line on stderr."""
    sys.exit(run(arguments))


def run(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    try:
        result = matchd.main(arguments, prog_name="matchd", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except ConfigError as error:
        for problem in error.problems:
            output.complain(problem)
        return error.exit_code
    except EngineError as error:
        output.complain(str(error))
        return error.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        # Not a mistake of one line: a group alone asks what there is.
        click.echo(error.format_message(), err=True)
        return EXIT_CONFIG
    except click.UsageError as error:
        where = f" (try '{error.ctx.command_path} --help')" if error.ctx else ""
        output.complain(error.format_message().replace("\n", " ") + where)
        return EXIT_CONFIG
    except click.ClickException as error:
        output.complain(error.format_message())
        return EXIT_OTHER
    except (KeyboardInterrupt, click.Abort):
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        output.stop_writing()
        return 0
    except OSError as error:
        output.complain(str(error))
        return EXIT_OTHER
