"""`mailrail store`: verify, salvage, compact and export stores that no engine has open.

Owns: which stores a command is about, and that nobody else uses them meanwhile.
Never: reads or writes a store (engine.store does).
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from engine.cli.configuration import load_settings
from engine.cli.options import common_options, fail, leave, print_json
from engine.core.errors import StoreError
from engine.settings.model import Settings
from engine.store.compact import compact_store
from engine.store.environment import Environment, StoreOptions
from engine.store.export import FORMATS, Wanted, export_store
from engine.store.owner import OwnerLock
from engine.store.quarantine import finish_salvage, quarantine
from engine.store.restore import Restored, Restorer
from engine.store.salvage import command as salvage_command
from engine.store.salvage import read_items
from engine.store.verify import Findings, verify_store

SHOWN = 50  # problems and losses that are printed; --json has more

_SHARDS = click.argument("shards", nargs=-1, type=click.IntRange(0), metavar="[SHARD]...")


@click.group()
def store() -> None:
    """Look after stores that no engine has open: verify, salvage, compact, export.

    \b
    Examples:
      mailrail store verify                   are all stores whole?
      mailrail store salvage 0                what can be read of shard 0's, into a fresh one
      mailrail store export /srv/out 0        its messages as files
    """


@store.command()
@_SHARDS
@common_options
def verify(config: str, as_json: bool, shards: tuple[int, ...]) -> None:
    """Read everything: pages, checksums, and each index against what it is an index of.

    Exits 1 where anything is damaged.

    \b
    Examples:
      mailrail store verify
      mailrail store verify 0 1 --json
    """
    found: list[Findings] = []
    with guarded(as_json):
        for directory in choose_stores(load_settings(config), shards):
            with owned(directory), progress(as_json) as shown:
                found.append(verify_store(directory, ticker(shown, f"verifying {directory.name}")))
    if as_json:
        print_json({"stores": msgspec.to_builtins(found)})
    else:
        for each in found:
            show_findings(each)
    leave(0 if all(each.is_whole for each in found) else 1)


@store.command()
@click.argument("source", metavar="FROM")
@click.option("--into", type=click.IntRange(0), metavar="SHARD", help="Into this shard's store.")
@click.option("--to", type=click.Path(path_type=Path), metavar="DIR", help="Into a store in this directory.")
@common_options
def salvage(config: str, as_json: bool, source: str, into: int | None, to: Path | None) -> None:
    """Put what can be read of a damaged store into another, and say what is lost.

    FROM is a shard's number or a directory, such as one in quarantine. Without --into or --to a shard's
    store is moved to quarantine and salvaged into a fresh one; a directory in quarantine goes into the
    store of its shard. What is there already is left out, so it can be done again. Exits 1 where anything
    is lost.

    \b
    Examples:
      mailrail store salvage 0
      mailrail store salvage /var/lib/mailrail/quarantine/shard-0-1764000000 --to /srv/readable
    """
    with guarded(as_json):
        settings = load_settings(config)
        become_owner(settings)
        origin = find_source(settings, source)
        target = to or find_target(settings, origin, into)
        if origin.resolve() == target.resolve():
            moved = quarantine(origin, "moved aside by `mailrail store salvage`", time.time())
            assert moved is not None, f"{origin}: data.mdb was there"
            origin = moved
        with progress(as_json) as shown:
            result = run_salvage(origin, target, settings, shown)
        report = {"from": str(origin), "to": str(target), **msgspec.to_builtins(result)}
        if (
            result.is_complete and to is None and origin.parent.name == "quarantine"
        ):  # else its shard must, yet
            finish_salvage(origin, summarize(result), result.lost)
    if as_json:
        print_json(report)
    else:
        show_restored(report)
    leave(0 if result.is_complete and not result.lost else 1)


@store.command()
@_SHARDS
@common_options
def compact(config: str, as_json: bool, shards: tuple[int, ...]) -> None:
    """Write the file of a store anew without its free pages, and give those to the disk.

    Needs room for the copy. A damaged store is refused.

    \b
    Example:
      mailrail store compact 0
    """
    rows = []
    with guarded(as_json):
        settings = load_settings(config)
        become_owner(settings)
        for directory in choose_stores(settings, shards):
            with progress(as_json) as shown:
                shown.add_task(f"compacting {directory.name}", total=None)
                row = compact_store(directory, store_options(settings))
            rows.append(row._asdict())
            if not as_json:
                click.echo(f"{row.store}: {row.before_bytes:,} octets before, {row.after_bytes:,} after")
    if as_json:
        print_json({"stores": rows})


@store.command()
@click.argument("target", metavar="DIR", type=click.Path(path_type=Path))
@_SHARDS
@click.option("--format", "form", type=click.Choice(FORMATS), default="spool", show_default=True)
@click.option("--customer", default="", metavar="NAME", help="Only this customer's.")
@click.option("--domain", default="", metavar="NAME", help="Only mail to this domain.")
@common_options
def export(
    config: str, as_json: bool, target: Path, shards: tuple[int, ...], form: str, customer: str, domain: str
) -> None:
    """Write the messages of stores to files in DIR; the stores stay as they are.

    `spool` files are taken by a spool listener, of another host for instance; `eml` files are the messages
    as they are, with their envelopes in envelopes.jsonl. Exits 1 where a message can't be read.

    \b
    Examples:
      mailrail store export /mnt/new/ --customer acme
      mailrail store export /srv/look --format eml --domain example.com
    """
    rows = []
    with guarded(as_json):
        for directory in choose_stores(load_settings(config), shards):
            with owned(directory), progress(as_json) as shown:
                row = export_store(
                    directory,
                    target,
                    form,
                    Wanted(customer, domain.lower()),
                    ticker(shown, f"exporting {directory.name}"),
                )
            rows.append(row)
            if not as_json:
                click.echo(
                    f"{row.store}: {row.messages:,} messages to {target}, {row.unreadable:,} can't be read"
                )
    if as_json:
        print_json({"to": str(target), "stores": msgspec.to_builtins(rows)})
    leave(1 if any(row.unreadable for row in rows) else 0)


# -- which stores ---------------------------------------------------------------------------------------


def choose_stores(settings: Settings, shards: tuple[int, ...]) -> list[Path]:
    """Return the directories of these shards' stores; of all that there are where none is named.

    Raises:
        StoreError: there is none.
    """
    data_dir = Path(settings.engine.data_dir)
    is_named = bool(shards)
    if not is_named:
        numbers = [path.name.removeprefix("shard-") for path in data_dir.glob("shard-*")]
        shards = tuple(sorted(int(number) for number in numbers if number.isdigit()))
    found = [data_dir / f"shard-{number}" for number in shards]
    found = [directory for directory in found if _has_store(directory, is_named=is_named)]
    if not found:
        raise StoreError(f"{data_dir}: there is no store")
    return found


def _has_store(directory: Path, *, is_named: bool) -> bool:
    if (directory / "data.mdb").exists():
        return True
    if is_named:
        raise StoreError(f"{directory}: there is no store")
    return False


def find_source(settings: Settings, source: str) -> Path:
    """Return the directory that a shard number or a path means. Raises StoreError."""
    directory = Path(settings.engine.data_dir) / f"shard-{source}" if source.isdigit() else Path(source)
    _has_store(directory, is_named=True)
    return directory


def find_target(settings: Settings, origin: Path, into: int | None) -> Path:
    """Return the store that is meant: the one named, else that of the shard whose store `origin` is or was.

    Raises:
        StoreError: `origin` is not a shard's.
    """
    words = origin.name.split("-")
    if into is None and words[0] == "shard" and len(words) > 1 and words[1].isdigit():
        into = int(words[1])
    if into is None:
        raise StoreError(f"{origin}: say where to, by --into SHARD or --to DIR")
    return Path(settings.engine.data_dir) / f"shard-{into}"


def store_options(settings: Settings) -> StoreOptions:
    """Return how a store is opened by hand: whoever does it does not wait for an engine to end."""
    return StoreOptions(
        map_size_bytes=settings.engine.map_size_bytes,
        min_free_bytes=0,
        min_free_fraction=0.0,
        lock_wait_s=0.0,
    )


def become_owner(settings: Settings) -> None:
    """Go on as the engine's user where root runs this: what root writes, the engine could not use."""
    owner = Path(settings.engine.data_dir).stat()
    if os.geteuid() == 0 and owner.st_uid != 0:
        os.setgroups([])
        os.setgid(owner.st_gid)
        os.setuid(owner.st_uid)


@contextlib.contextmanager
def owned(directory: Path) -> Iterator[None]:
    """Own a store for a while. Raises StoreError where an engine does."""
    lock = OwnerLock(directory)
    lock.take(0.0)
    try:
        yield
    finally:
        lock.release()


# -- salvage --------------------------------------------------------------------------------------------


def run_salvage(origin: Path, target: Path, settings: Settings, shown: Progress) -> Restored:
    """Read `origin` in a process of its own, and put what it reads into the store in `target`.

    Raises:
        StoreError: a store is in use, or `target` can't be written.
    """
    environment = Environment(target, store_options(settings))
    with owned(origin):
        environment.open()
        reader = subprocess.Popen(salvage_command(origin), stdout=subprocess.PIPE)  # noqa: S603 (our own)
        try:
            assert reader.stdout is not None
            restorer = Restorer(environment, time.time())
            return restorer.run(read_items(reader.stdout), ticker(shown, f"salvaging {origin.name}"))
        finally:
            reader.kill()
            reader.wait()
            assert reader.stdout is not None
            reader.stdout.close()
            environment.close()


def summarize(result: Restored) -> dict[str, Any]:
    """Return what is kept on record of a salvage."""
    facts = msgspec.to_builtins(result)
    return {**facts, "lost": len(result.lost)}


# -- showing --------------------------------------------------------------------------------------------


def show_findings(findings: Findings) -> None:
    """Print what verification found."""
    entries = ", ".join(f"{count:,} {name}" for name, count in findings.entries.items() if count)
    state = "whole" if findings.is_whole else f"{findings.problem_count:,} problems"
    click.echo(f"{findings.store}: {state}; {findings.size_bytes:,} octets, {entries or 'empty'}")
    for problem in findings.problems[:SHOWN]:
        click.echo(f"  {problem}")
    if findings.problem_count > SHOWN:
        click.echo(f"  and {findings.problem_count - SHOWN:,} more")


def show_restored(report: dict[str, Any]) -> None:
    """Print what became of a salvage."""
    click.echo(f"{report['from']}: {report['deliveries']:,} deliveries into {report['to']}")
    if report["known"]:
        click.echo(f"  {report['known']:,} were there already")
    if report["has_past"]:
        click.echo("  mail that had left already may be among them: it can't be told apart")
    if not report["is_complete"]:
        click.echo("  the reader did not come to its end: do it again")
    click.echo(f"  {len(report['lost']):,} lost")
    for each in report["lost"][:SHOWN]:
        whom = ", ".join(each.get("recipients", ())) or each.get("domain", "") or each.get("sender", "")
        click.echo(f"  {each['delivery']} {whom}: {each['why']}")


def progress(as_json: bool) -> Progress:
    """Return a progress display on standard error; none for programs."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f}"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        disable=as_json,
        transient=True,
    )


def ticker(shown: Progress, what: str) -> Callable[..., None]:
    """Return what is called with how much is done, and of how much where that is known."""
    task = shown.add_task(what, total=None)

    def tick(done: int, of: int | None = None) -> None:
        shown.update(task, completed=done, total=of)

    return tick


@contextlib.contextmanager
def guarded(as_json: bool) -> Iterator[None]:
    """Turn what a store or the disk refuses into an error of the command."""
    try:
        yield
    except (StoreError, OSError) as error:
        fail(str(error), as_json)
