"""Sessions that a mail administrator can read: tests/dialogues/*.dlg, played against our two ends.

    # comment
    role: client | server         which end is ours
    protocol: lmtp                client: what is spoken, if not SMTP
    offers: PIPELINING SIZE=1000 8BITMIME        client: what the peer said to EHLO
    limits: max_recipients=2                     server: limits other than the defaults
    rules: requires_auth may_xclient             server: what of smtp.access is on
    C: line, CRLF added           what the client writes
    S: line, CRLF added           what the server writes
    C| octets with \\r \\n \\0 \\x16   the same, nothing added
    [action or fact]              see `Client` and `Server`

The stranger's lines are fed, ours are expected. Each file is played twice: a block of lines as one piece, and
octet by octet.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.core.errors import RemoteProtocolError
from engine.core.reply import make_reply
from engine.smtp.access import HANDSHAKE, Access, AccessRules
from engine.smtp.auth import Credentials
from engine.smtp.client import ClientConversation, Outcome
from engine.smtp.hello import ServerLimits
from engine.smtp.lmtp import LmtpConversation
from engine.smtp.server import ServerConversation
from engine.smtp.wire import stuff

DIALOGUES = sorted((Path(__file__).parent.parent / "dialogues").glob("*.dlg"))


class Client:
    """Ours is the client. Facts and actions:

    [begin NAME from S to R R]    [behind MAIL X] before it: what stands behind the path of MAIL
    [begin chunked NAME from ...] a transaction without DATA
    [content NAME: text]          the peer wants the content of NAME and gets this one line
    [chunk NAME: text]            the message of NAME, the last one begun, goes out as one BDAT
    [quit] [lost]                 say QUIT; the connection is gone
    [NAME R: reply]               what decides recipient R; "nothing" when nothing was said
    [NAME is untried|uncertain|misunderstood]   no attempt; the peer may have it; it can't do what it offers
    [waiting for X] [wanted NAME] [closing] [out of step]
    """

    ours = "C"

    def __init__(self, headers: dict[str, str]) -> None:
        conversation = LmtpConversation if headers.get("protocol") == "lmtp" else ClientConversation
        self.conversation = conversation(pipelining="PIPELINING" in headers.get("offers", "").split())
        self.out = b""
        self.behind_mail, self.is_broken = "", False
        self.recipients: dict[str, list[str]] = {}
        self.outcomes: dict[str, Outcome] = {}

    def feed(self, data: bytes) -> None:
        try:
            self.out += self.conversation.receive(data)
        except RemoteProtocolError:
            self.is_broken = True
        while (outcome := self.conversation.pop_outcome()) is not None:
            self.outcomes[outcome.token] = outcome

    def act(self, action: str) -> None:
        words = action.split()
        conversation = self.conversation
        match words:
            case ["behind", "MAIL", *parameters]:
                self.behind_mail = "".join(f" {parameter}" for parameter in parameters)
            case ["begin", "chunked", *rest]:
                self.begin(rest, is_chunked=True)
            case ["begin", *rest]:
                self.begin(rest, is_chunked=False)
            case ["chunk", *_]:
                assert conversation.may_chunk
                text = _unescape(action.partition(": ")[2])
                self.out += conversation.chunk(text.encode() + b"\r\n")
            case ["content", name, *_]:
                assert conversation.wants_content
                assert conversation.content_token == name.removesuffix(":")
                self.out += conversation.content(stuff(action.partition(": ")[2].encode() + b"\r\n"))
            case ["quit"]:
                self.out += conversation.quit()
            case ["lost"]:
                self.outcomes |= {outcome.token: outcome for outcome in conversation.lost()}
            case _:
                self.check(action, words)

    def begin(self, words: list[str], *, is_chunked: bool) -> None:
        name, _, sender, _, *recipients = words
        self.recipients[name] = recipients
        sender = sender.strip("<>")
        self.out += self.conversation.begin(
            sender, recipients, is_chunked=is_chunked, token=name, mail_parameters=self.behind_mail
        )

    def check(self, action: str, words: list[str]) -> None:
        conversation = self.conversation
        match words:
            case ["waiting", "for", what]:
                assert conversation.waiting_for == what
            case ["closing"]:
                assert conversation.is_closing
            case ["out", "of", "step"]:
                assert self.is_broken
            case [name, "is", what]:
                assert getattr(self.outcomes[name], f"is_{what}")
            case ["wanted", name]:
                assert conversation.wants_content
                assert conversation.content_token == name
            case [name, recipient, *_]:
                reply = self.outcomes[name].reply_for(
                    self.recipients[name].index(recipient.removesuffix(":"))
                )
                assert str(reply or "nothing").replace("\n", "\\n") == action.partition(": ")[2]
            case _:
                raise AssertionError(f"no such action: [{action}]")


class Server:
    """Ours is the server. Facts and actions:

    [message from S to R R: text]   a message is complete; its text with \\r \\n
    [finish reply]                  the answer to it
    [shut reply] [time out]         the shell's words
    [wants USER PASSWORD]           credentials wait to be looked at
    [let in reply] [refuse reply]   the answer to them
    [secured] [presented]           TLS is on; the client that a front end speaks for is welcome
    [closing] [resting]
    """

    ours = "S"

    def __init__(self, headers: dict[str, str]) -> None:
        limits = dict(limit.split("=") for limit in headers.get("limits", "").split())
        rules = dict.fromkeys(headers.get("rules", "").split(), True)
        may_xclient = rules.pop("may_xclient", False)
        self.conversation = ServerConversation(
            ServerLimits("mta1.example.net", **{name: int(value) for name, value in limits.items()}),
            access=Access(AccessRules(**rules), may_xclient=may_xclient),
        )
        self.out = self.conversation.greeting()

    def feed(self, data: bytes) -> None:
        self.out += self.conversation.receive(data)

    def act(self, action: str) -> None:
        conversation = self.conversation
        verb, _, rest = action.partition(" ")
        if verb == "message":
            transaction = conversation.completed
            assert transaction is not None
            text = transaction.message.decode().replace("\r", "\\r").replace("\n", "\\n")
            envelope = f"from <{transaction.sender}> to {' '.join(transaction.recipients)}"
            assert f"{envelope}: {text}" == rest
        elif verb in {"finish", "shut"}:
            code, enhanced, text = rest.split(" ", 2)
            self.out += getattr(conversation, verb)(make_reply(int(code), enhanced, text))
        elif verb == "wants":
            wanted = conversation.access.wants
            assert isinstance(wanted, Credentials)
            assert f"{wanted.user} {wanted.password.decode()}" == rest
        elif verb in {"let", "refuse"}:
            code, enhanced, text = rest.removeprefix("in ").split(" ", 2)
            user = "ann" if verb == "let" else ""
            self.out += conversation.authenticated(make_reply(int(code), enhanced, text), user)
        elif action == "secured":
            assert conversation.access.wants is HANDSHAKE
            conversation.secured()
        elif action == "presented":
            self.out += conversation.presented(None)
        elif action == "time out":
            self.out += conversation.time_out()
        elif action == "closing":
            assert conversation.is_closing
        elif action == "resting":
            assert conversation.completed is not None
        else:
            raise AssertionError(f"no such action: [{action}]")


def read_dialogue(path: Path) -> tuple[dict[str, str], list[tuple[int, str, str]]]:
    """Return the headers, and each line as (number, kind, text)."""
    headers: dict[str, str] = {}
    lines: list[tuple[int, str, str]] = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        if line.startswith("["):
            lines.append((number, "[", line.strip()[1:-1]))
        elif line[:3] in {"C: ", "S: ", "C| ", "S| "} or line in {"C:", "S:"}:
            text = line[3:]
            octets = text + "\r\n" if line[1] == ":" else _unescape(text)
            lines.append((number, line[0], octets))
        else:
            name, colon, value = line.partition(": ")
            assert colon, f"{path.name}:{number}: expected a header, C:, S:, or an [action]"
            headers[name] = value
    return headers, lines


def _unescape(text: str) -> str:
    named = text.replace("\\r", "\r").replace("\\n", "\n").replace("\\0", "\0")
    return re.sub(r"\\x([0-9a-f]{2})", lambda match: chr(int(match[1], 16)), named)


def blocks(lines: list[tuple[int, str, str]]) -> Iterator[tuple[int, str, str]]:
    """Join neighboring lines of one speaker."""
    pending: tuple[int, str, str] | None = None
    for number, kind, text in lines:
        if pending is not None and kind != "[" and pending[1] == kind:
            pending = (pending[0], kind, pending[2] + text)
            continue
        if pending is not None:
            yield pending
        pending = (number, kind, text)
    if pending is not None:
        yield pending


@pytest.mark.parametrize("is_bytewise", [False, True], ids=["whole", "bytewise"])
@pytest.mark.parametrize("path", DIALOGUES, ids=lambda path: path.stem)
def test_dialogue(path: Path, is_bytewise: bool) -> None:
    headers, lines = read_dialogue(path)
    end = {"client": Client, "server": Server}[headers["role"]](headers)
    for number, kind, text in blocks(lines):
        where = f"{path.name}:{number}"
        octets = text.encode()
        if kind == "[":
            end.act(text)
        elif kind == end.ours:
            said, end.out = end.out[: len(octets)], end.out[len(octets) :]
            assert said == octets, where
        else:
            assert end.out == b"", f"{where}: {end.out!r} was said and is not in the dialogue"
            for piece in [octets[i : i + 1] for i in range(len(octets))] if is_bytewise else [octets]:
                end.feed(piece)
    assert end.out == b""


def test_there_are_dialogues_for_both_ends() -> None:
    roles = {read_dialogue(path)[0]["role"] for path in DIALOGUES}
    assert roles == {"client", "server"}
