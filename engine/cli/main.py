"""The commands of `mailrail`.

Every command takes `-c FILE` (or MAILRAIL_CONFIG, or /etc/mailrail/mailrail.toml), has `--json`, and exits
0, 1 (the thing asked about is bad) or 2 (usage).

Owns: the commands, their help and exit statuses. What a command does stands in the module of its name.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import click

from engine.cli import check as checking
from engine.cli import classify as classifying
from engine.cli import explain as explaining
from engine.cli import look, steer
from engine.cli import password as hashing
from engine.cli import send as sending
from engine.cli.api import AdminApi, ApiError
from engine.cli.configuration import admin_addresses, load_settings
from engine.cli.options import (
    common_options,
    complain,
    fail,
    leave,
    limit_option,
    of_letter,
    of_queues,
    print_json,
    require_utf8,
    tell,
)
from engine.cli.rules import rules
from engine.cli.store import store
from engine.cli.tables import make_console
from engine.cli.values import HOST, MESSAGE_ID, SECONDS
from engine.core.address import parse_domain
from engine.core.errors import ConfigError
from engine.demo.scenario import MAX_MESSAGES, MIN_MESSAGES

_HELP = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@click.group(context_settings=_HELP)
@click.version_option(package_name="mailrail", prog_name="mailrail")
def cli() -> None:
    """Mailrail: a delivery engine for hosts with many source addresses.

    \b
    Examples:
      mailrail check -c mailrail.toml         is the configuration right?
      mailrail serve -c mailrail.toml         run the engine
      mailrail status                         what does it do?
      mailrail explain gmail.com --vmta a1    which limits hold there, and why?
    """


@cli.command()
@common_options
def serve(config: str, as_json: bool) -> None:  # noqa: ARG001 - the form of the log is [engine] log_format
    """Run the engine: a supervisor and its shards, in the foreground.

    SIGHUP reloads, SIGTERM stops gracefully, a second SIGTERM at once. The log goes to stderr, one event a
    line; log_format = "json" in [engine] makes it JSON.

    \b
    Example:
      mailrail serve -c /etc/mailrail/mailrail.toml
    """
    from engine.supervisor.serve import serve as run_engine

    leave(run_engine(config))


@cli.command()
@click.option("--strict", is_flag=True, help="Warnings make it fail, too.")
@common_options
def check(config: str, as_json: bool, strict: bool) -> None:
    """Read the configuration and all policies, and report what is wrong or can't fire.

    \b
    Examples:
      mailrail check -c mailrail.toml
      mailrail check --strict --json
    """
    findings = checking.find_problems(config)
    if as_json:
        print_json(checking.format_findings(findings, strict))
    else:
        for finding in findings:
            click.echo(str(finding))
        if not findings:
            click.echo(f"{config}: good")
    leave(0 if checking.is_good(findings, strict) else 1)


@cli.command()
@click.argument("files", nargs=-1, type=click.Path(), metavar="[FILE]...")
@common_options
@click.pass_context
def classify(context: click.Context, config: str, as_json: bool, files: tuple[str, ...]) -> None:
    """Say what replies mean: category, the rule that found it, and what is done about it.

    Reads FILEs or standard input: replies, one a line, or JSON objects with `response` and, where it is
    known, `provider`. With --json it prints an object for each, one a line. Where there is no configuration,
    the rules that ship hold. Exits 1 where a line is wrong.

    \b
    Examples:
      echo '452 4.2.2 mailbox full' | mailrail classify
      mailrail classify --json replies.jsonl
    """
    is_named = context.get_parameter_source("config") is not click.core.ParameterSource.DEFAULT
    policies = classifying.load_rules(config, is_named=is_named)
    is_good = True
    for name in files or ("-",):
        try:
            stream = click.open_file(name, "rb")
        except OSError as error:
            fail(f"can't read {name}: {error.strerror}", as_json)
        with stream:
            is_good &= classifying.classify_stream(policies, stream, name, as_json)
    leave(0 if is_good else 1)


@cli.command()
@click.argument("domain")
@click.option("--vmta", default="", metavar="NAME", help="As this vmta.")
@click.option("--customer", default="", metavar="NAME", help="For this customer's mail.")
@click.option("--mx", multiple=True, type=HOST, metavar="HOST", help="From files, with this MX; repeatable.")
@click.option("--offline", is_flag=True, help="From the files, even if an engine runs.")
@common_options
def explain(**options: Any) -> None:
    """Say which limits hold for mail to DOMAIN, where each came from, and which one binds.

    Exits 1 where DOMAIN is none, or can't receive mail.

    \b
    Examples:
      mailrail explain gmail.com --vmta acme-1
      mailrail explain example.com --mx aspmx.l.google.com --offline
    """
    try:
        options["domain"] = parse_domain(options["domain"])
    except ValueError as error:
        fail(str(error), options["as_json"])
    answer = _find_explanation(**options)
    if options["as_json"]:
        print_json(answer)
    else:
        click.echo(explaining.format_answer(answer))
        if answer.get("paths"):
            look.show_rows(make_console(), "paths", answer, time.time())
    leave(1 if answer.get("problem") else 0)


def _find_explanation(
    config: str, domain: str, vmta: str, customer: str, mx: tuple[str, ...], offline: bool, as_json: bool
) -> dict[str, Any]:
    if not offline and not mx:
        try:
            return _api(config).get("/explain", {"domain": domain, "vmta": vmta, "customer": customer})
        except ApiError as error:
            if error.status:
                raise
            if not as_json:
                click.echo(
                    "no engine runs with this configuration: from the files, without MX look-ups", err=True
                )
    import msgspec

    found: dict[str, Any] = msgspec.to_builtins(
        explaining.explain_offline(config, domain, vmta, customer, mx)
    )
    return found


@cli.command()
@common_options
def reload(config: str, as_json: bool) -> None:
    """Load the configuration anew, without dropping a session. A wrong one is refused and changes nothing.

    \b
    Example:
      mailrail check && mailrail reload
    """
    answer = _api(config).post("/reload", {})
    tell(as_json, answer, lambda: click.echo(f"reloaded: generation {answer.get('generation', '-')}"))


@cli.command()
@click.option("--off", is_flag=True, help="Take new mail again.")
@click.option("--wait", is_flag=True, help="Wait until nothing is left, and show how it goes.")
@click.option(
    "--timeout",
    type=SECONDS,
    default=0.0,
    metavar="S",
    help="With --wait: give up after so many seconds (0: never).",
)
@common_options
def drain(config: str, as_json: bool, off: bool, wait: bool, timeout: float) -> None:
    """Refuse new mail (421) while everything that is stored goes on being delivered.

    Spool files stay in new/.

    \b
    Examples:
      mailrail drain --wait       empty the host before it is taken down
      mailrail drain --off        take mail again
    """
    if off and (wait or timeout):
        raise click.UsageError("--off takes mail again at once: nothing to wait for with --wait or --timeout")
    if timeout and not wait:
        raise click.UsageError("--timeout says how long to --wait")
    api = _api(config)
    answer = api.post("/drain", {"on": not off})
    if wait:
        answer = steer.wait_drained(api, timeout, is_shown=not as_json)
    tell(as_json, answer, lambda: click.echo(steer.describe_drain(answer)))
    leave(0 if not wait or answer.get("is_empty") else 1)


@cli.command()
@click.argument("message_id", metavar="ID", type=MESSAGE_ID)
@common_options
def retry(config: str, as_json: bool, message_id: str) -> None:
    """Try a message now: all its deliveries become due, and those held as poison are let go.

    What was tried so far counts on: the time between attempts, and when it expires.

    \b
    Example:
      mailrail retry 06413f2a9c1e5b00d1a2b3c4
    """
    answer = _api(config).post("/retry", {"id": message_id})

    def show() -> None:
        click.echo(steer.describe_retry(answer))
        look.show_unanswered(make_console(), answer)

    tell(as_json, answer, show)


cli.commands.update(rules=rules, store=store)


@cli.command()
@common_options
def status(config: str, as_json: bool) -> None:
    """Show shards, listeners and counts of the running engine.

    Exits 1 when no engine answers, or a shard is down or does not answer.

    \b
    Example:
      mailrail status --json | jq .counts
    """
    answer = _api(config).get("/status")
    tell(as_json, answer, lambda: look.show_status(make_console(), answer, time.time()))
    is_whole = not answer.get("unanswered")
    leave(0 if is_whole and all(shard.get("is_up", True) for shard in answer.get("shards", ())) else 1)


@cli.command()
@of_queues
@common_options
def queues(config: str, as_json: bool, **criteria: Any) -> None:
    """Show what waits, by customer and recipient domain, longest queue first.

    \b
    Example:
      mailrail queues --customer acme --limit 10
    """
    _show_rows(config, as_json, "queues", criteria)


@cli.command()
@click.option("--vmta", metavar="NAME", help="Only of this vmta.")
@click.option("--destination", metavar="NAME", help="Only to this destination.")
@click.option("--pool", metavar="NAME", help="Only of the vmtas of this pool.")
@limit_option
@common_options
def paths(config: str, as_json: bool, **criteria: Any) -> None:
    """Show paths (vmta and destination): sessions, rates, and what each waits for.

    \b
    Examples:
      mailrail paths --destination gmail
      mailrail paths --vmta acme-1
    """
    _show_rows(config, as_json, "paths", criteria)


@cli.command()
@of_queues
@common_options
def messages(config: str, as_json: bool, **criteria: Any) -> None:
    """Show messages that wait: where, since when, and why.

    \b
    Examples:
      mailrail messages --domain example.com
      mailrail messages --customer acme --limit 1000 --json
    """
    _show_rows(config, as_json, "messages", criteria)


@cli.command()
@click.argument("message_id", metavar="ID", type=MESSAGE_ID)
@common_options
def message(config: str, as_json: bool, message_id: str) -> None:
    """Show one message that waits, with each of its deliveries.

    \b
    Example:
      mailrail message 06413f2a9c1e5b00d1a2b3c4
    """
    answer = _api(config).get(f"/messages/{message_id}")
    tell(as_json, answer, lambda: look.show_message(make_console(), answer, time.time()))


@cli.command()
@of_letter
@click.option("--listener", default="", metavar="NAME", help="By this SMTP listener; default: the first.")
@common_options
def send(**options: Any) -> None:
    """Hand one message to the running engine by SMTP, and show what it answers.

    \b
    Examples:
      mailrail send --from news@acme.example --to you@example.net
      mailrail send --from news@acme.example --to you@example.net --file message.eml
    """
    settings = load_settings(options["config"])
    host, port = sending.find_listener(settings, options["config"], options["listener"])
    recipients = list(options["recipients"])
    source = options["source"]
    content = (
        source.read()
        if source is not None
        else sending.make_message(options["sender"], recipients, options["subject"], options["text"])
    )
    try:
        answer = sending.send_letter(host, port, sending.Letter(options["sender"], recipients, content))
    except sending.SendError as error:
        fail(str(error), options["as_json"], code=error.code)
    if options["as_json"]:
        print_json(answer)
    else:
        click.echo(answer["reply"])
        for recipient, reply in answer["refused"].items():
            click.echo(f"{recipient}: {reply}", err=True)
    leave(1 if answer["refused"] else 0)


@cli.command()
@common_options
def password(config: str, as_json: bool) -> None:  # noqa: ARG001 - reads no configuration
    """Make the hash of a password, for `credentials` of a customer.

    Asks twice on a terminal; else reads one line from standard input.

    \b
    Examples:
      mailrail password
      printf '%s\\n' "$SECRET" | mailrail password
    """
    try:
        hashed = hashing.make_hash(hashing.read_password())
    except ValueError as error:
        fail(str(error), as_json)
    tell(as_json, {"password": hashed}, lambda: click.echo(hashed))


@cli.command()
@click.option(
    "--keep", is_flag=True, help="Leave engine and sinks running until Ctrl-C, and say where to look."
)
@click.option(
    "--messages",
    type=click.IntRange(MIN_MESSAGES, MAX_MESSAGES),
    default=20_000,
    show_default=True,
    help="How many to send; fewer end sooner, too few bind no limit.",
)
@common_options
def demo(config: str, as_json: bool, keep: bool, messages: int) -> None:  # noqa: ARG001 - it writes its own
    """Run the engine on loopback under limits that bind, judged by the receiving side.

    Two shards, four customers, twelve vmtas and five destinations in a throw-away directory. Mail comes in
    by SMTP, socket and spool at once; each destination is a sink process that counts for itself. Takes about
    a minute. Exits 0 only if the sinks saw every message once, from the right source, within every limit,
    and every limit used. Reads no configuration: it writes one of its own, and says where with --keep.

    \b
    Examples:
      mailrail demo
      mailrail demo --keep        then look around with status, paths, explain
    """
    from engine.demo.run import run_demo

    leave(run_demo(make_console(stderr=as_json), messages, keep=keep, as_json=as_json))


def _show_rows(config: str, as_json: bool, what: str, criteria: dict[str, Any]) -> None:
    answer = _api(config).get(f"/{what}", criteria)
    tell(as_json, answer, lambda: look.show_rows(make_console(), what, answer, time.time()))


def _api(config: str) -> AdminApi:
    return AdminApi(*admin_addresses(load_settings(config)))


def run(argv: list[str]) -> int:
    """Run one command; return the exit status."""
    try:
        require_utf8(argv)
        cli.main(argv, prog_name="mailrail", standalone_mode=False)
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else 1
    except click.exceptions.Exit as leaving:
        return leaving.exit_code
    except click.ClickException as error:
        if "--json" in argv:
            complain(error.format_message(), as_json=True)
        else:
            error.show()
        return error.exit_code
    except click.Abort:
        return 1
    except (ConfigError, ApiError) as error:
        complain(str(error), "--json" in argv)
        # What the engine calls a bad request was wrong as it was typed.
        return 2 if isinstance(error, ApiError) and error.status == 400 else 1
    except OSError as error:
        if argv[:1] == ["serve"]:
            raise  # the engine's own bug
        click.echo(f"mailrail: {error}", err=True)  # most often of standard output: a disk that is full
        return 1
    return 0


def main() -> None:
    """Run the command line of this process."""
    sys.exit(run(sys.argv[1:]))
