"""docs/feeds.md says what injectors may send: fields, extensions, directories, bounds."""

from __future__ import annotations

import re
from pathlib import Path

from engine.inject import frames, smtp_session, socket, socket_session
from engine.inject.spool_directory import SpoolDirectory
from engine.message.headers import MAX_CONTROL_CHARACTERS, MAX_TAGS, TERMS, Controls, scan, take_controls
from engine.message.pickup import parse_pickup
from engine.net import proxied
from engine.net.certificate import HANDSHAKE_TIMEOUT_S
from engine.smtp.auth import MECHANISMS
from engine.smtp.hello import ServerLimits
from engine.smtp.reading import MAX_COMMAND_BYTES
from engine.smtp.server import ServerConversation
from engine.smtp.xclient import ATTRIBUTES
from tests.docs.pages import blocks, read_names, read_page, read_rows, section

PAGE = read_page("feeds")


def test_every_field_of_a_submission_and_of_its_answer_has_a_row() -> None:
    submission, answer = section(PAGE, "## The socket").split("An answer is a map:")
    assert read_names(submission) == list(frames.Submission.__struct_fields__)
    assert read_names(answer) == list(frames.Answer.__struct_fields__)
    required = [row[0].strip("`") for row in read_rows(submission) if row[2].startswith("required")]
    assert required == ["id", "sender", "recipients", "message"]


def test_extensions_that_are_offered_are_those_of_the_page() -> None:
    session = ServerConversation(ServerLimits("mta.example"))
    lines = session.receive(b"EHLO client.example\r\n").decode().splitlines()[1:]
    offered = [re.split(r"[ -]", line, maxsplit=2)[1] for line in lines]
    listed = re.search(r"EHLO offers (.*?)\.", section(PAGE, "## SMTP"), re.DOTALL)
    assert listed is not None
    assert re.findall(r"`([0-9A-Z]+)`", listed[1]) == offered


def test_bounds_of_smtp_are_those_of_the_code() -> None:
    bounds = {row[0]: row[1] for row in read_rows(section(PAGE, "## SMTP"))}
    limits = ServerLimits("mta.example")
    assert bounds["command line"] == f"{MAX_COMMAND_BYTES:,} octets"
    assert bounds["errors between two messages"] == str(limits.max_errors)
    assert bounds["commands without a message"] == str(limits.max_idle_commands)
    assert bounds["silence, waiting for a command"] == f"{smtp_session.COMMAND_TIMEOUT_S // 60} min"
    assert bounds["silence, inside a message"] == f"{smtp_session.DATA_BLOCK_TIMEOUT_S // 60} min"
    assert bounds["one message altogether"] == f"{smtp_session.MESSAGE_TIMEOUT_S // 3600} h"
    assert bounds["TLS handshake"] == f"{HANDSHAKE_TIMEOUT_S:g} s"
    header = f"{proxied.HEADER_TIMEOUT_S:g} s, {proxied.MAX_V1_BYTES} octets (version 1)"
    assert bounds["a proxy's header"] == f"{header}, {16 + proxied.MAX_V2_BYTES:,} (version 2)"


def test_commands_of_access_are_those_of_the_page() -> None:
    text = " ".join(section(PAGE, "## SMTP").split())
    assert f"with {' or '.join(MECHANISMS)} and a user" in text
    assert f"XCLIENT with {', '.join(ATTRIBUTES[:-1])} and {ATTRIBUTES[-1]}" in text


def test_bounds_of_the_socket_are_those_of_the_code() -> None:
    text = " ".join(section(PAGE, "## The socket").split())
    pending_mib = socket_session.MAX_PENDING_BYTES >> 20
    assert f"{socket_session.MAX_PENDING} submissions or {pending_mib} MiB in flight" in text
    assert f"{socket_session.STALL_S} s without an octet" in text
    assert f"{socket_session.FRAME_TIMEOUT_S} s for a whole one" in text
    assert f"{socket_session.UNREAD_S} s without reading" in text
    assert f"{socket.RECIPIENT_BYTES} for each of `max_recipients`" in text
    assert f"{socket.FRAME_OVERHEAD_BYTES >> 10} KiB" in text
    assert f"up to {frames.MAX_ID_CHARACTERS} characters; names the answer" in text


def test_every_control_field_has_a_row_and_does_what_it_says() -> None:
    text = section(PAGE, "## Control fields")
    names = [name.removeprefix("X-Mailrail-").lower() for name in read_names(text)]
    assert names == ["customer", "pool", "job", "tag", *[term.replace("_", "-") for term in TERMS]]
    assert f"up to {MAX_TAGS} times" in text
    assert f"cut at {MAX_CONTROL_CHARACTERS} characters" in text
    message = b"".join(f"X-Mailrail-{name}: a=b\r\n".encode() for name in (*names, "unknown")) + b"\r\n"
    controls, rest = take_controls(message, scan(message), is_trusted=True)
    terms = dict.fromkeys(TERMS, "a=b")
    assert controls == Controls(customer="a=b", pool="a=b", job="a=b", tags={"a": "b"}, terms=terms)
    assert rest == b"\r\n"


def test_every_directory_of_a_spool_has_a_row(tmp_path: Path) -> None:
    directory = SpoolDirectory(tmp_path / "spool", 0)
    directory.open()
    directory.close()
    listed = {name.partition("/")[0] for name in read_names(section(PAGE, "## The spool"))}
    assert {path.name for path in (tmp_path / "spool").iterdir()} == listed


def test_example_of_a_spool_file_is_what_the_spool_takes() -> None:
    (example,) = blocks(section(PAGE, "## The spool"), "")
    pickup = parse_pickup(example.encode())
    assert (pickup.sender, pickup.recipients) == ("news@acme.example", ["ann@x.example", "bob@y.example"])
    assert pickup.message.startswith(b"From: ")


def test_example_of_the_client_is_python_that_names_what_there_is() -> None:
    (example,) = blocks(section(PAGE, "## The socket"), "python")
    compile(example, "feeds.md", "exec")
    scope: dict[str, object] = {}
    exec(example.partition("\n\n")[0], scope)
    assert {"SocketClient", "Submission"} <= set(scope)
