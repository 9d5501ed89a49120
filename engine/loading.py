"""Reads the files of a configuration and builds the model that every process of the engine shares.

Two steps, so that a shard builds from the texts that the supervisor read, not from files that may
have changed since: `load_texts` does the reading, `build_model` is pure.

Fails: ConfigError naming the file, and the line that asked for it.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import msgspec
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from engine.core.document import Document, KeyPath
from engine.core.errors import ConfigError, Origin
from engine.core.fields import describe, suggest
from engine.core.finding import Finding
from engine.message.dkim import PrivateKey, load_key
from engine.net.certificate import CertificateError, make_server_context
from engine.net.handshake import load_certificate
from engine.net.tls import make_client_context
from engine.policy.check import check_policies
from engine.policy.fold import PolicySet
from engine.policy.layers import Scope, Section
from engine.policy.parse import parse_policies
from engine.settings.check import check_settings
from engine.settings.fields import credential
from engine.settings.model import Settings
from engine.settings.parse import parse_settings

GOOD_RSA_BITS = 2048  # RFC 8301 section 3.2: signers SHOULD use at least these; below 1,024 is refused
MAX_LOADED_KEYS = 10_000  # remembered over reloads: proving that an RSA key is one takes 28 ms


class Asked(NamedTuple):
    """Who asked for a file: the line, and what stands there, before what is wrong."""

    origin: Origin
    key: str = ""

    def refuse(self, detail: str) -> ConfigError:
        """Return the error of a file that can't be used."""
        return ConfigError(self.origin, f"{self.key}{detail}")


class Texts(msgspec.Struct, frozen=True):
    """Everything that was read, by file name; travels between processes."""

    config_path: str
    settings: str
    policies: list[tuple[str, str]]  # shipped ones first, then the operator's, in the order of reading
    keys: dict[
        str, str
    ]  # keys and certificates (PEM), passwords: by path, as settings and policies name them


class Model(msgspec.Struct, frozen=True):
    """One generation of the configuration."""

    settings: Settings
    policies: PolicySet
    keys: dict[str, PrivateKey]  # DKIM's, by path
    pems: dict[str, str] = {}  # keys, certificates and roots, for TLS, as they were read, by path


def load_texts(config_path: str) -> Texts:
    """Read mailrail.toml, the policies that ship, those it names, and the keys and certificates of both."""
    text = _read(config_path, Asked(Origin(config_path, 0)))
    settings = parse_settings(config_path, text)
    document = Document(config_path, text)
    policies = _read_policies(document, settings)
    _check_certificates(document, settings)
    named = (*_key_files(settings), *_password_files(document))
    keys = {file: _read(file, _asked_by(document, path)) for path, file in named}
    if settings.engine.tls_ca_file:
        keys |= _read_roots(settings.engine.tls_ca_file, _asked_by(document, ("engine", "tls_ca_file")))
    for section in _sections(parse_policies(policies)):
        keys |= _read_pair(section)
    return Texts(config_path, text, policies, keys)


def load_policies(config_path: str) -> PolicySet:
    """Read the policies of a configuration alone: what needs nothing else needs no key that it names."""
    text = _read(config_path, Asked(Origin(config_path, 0)))
    return parse_policies(_read_policies(Document(config_path, text), parse_settings(config_path, text)))


def _read_policies(document: Document, settings: Settings) -> list[tuple[str, str]]:
    """Read the policies that ship, and those that the settings name."""
    policies = load_shipped_policies()
    for index, place in enumerate(settings.engine.policies):
        asked_by = Asked(document.origin(("engine", "policies", index)), "[engine]: key policies: ")
        found = Path(document.file).parent / place  # an absolute path stays as it is
        policies += [(str(file), _read(str(file), asked_by)) for file in _policy_files(found, asked_by)]
    return policies


def _check_certificates(document: Document, settings: Settings) -> None:
    """A certificate that can't be used is found here; shards read it themselves, again when it changes."""
    for index, row in enumerate(settings.listeners):
        if not row.tls_certificate:
            continue
        try:
            make_server_context(row.tls_certificate, row.tls_key, row.tls_min_version)
        except CertificateError as error:
            raise _asked_by(document, ("listener", index, "tls_certificate")).refuse(str(error)) from error


def build_model(texts: Texts) -> Model:
    """Build the model; the same texts give the same model in every process."""
    settings = _with_passwords(texts, parse_settings(texts.config_path, texts.settings))
    policies = parse_policies(texts.policies)
    _require_names("customer", policies.layers.customers, settings.customers)
    _require_names("vmta", policies.layers.vmtas, settings.vmtas)
    return Model(settings, policies, _load_keys(texts, settings), texts.keys)


def check_texts(texts: Texts) -> list[Finding]:
    """Return what looks wrong in a configuration that loads."""
    model = build_model(texts)
    return [
        *check_settings(texts.config_path, texts.settings, model.settings),
        *check_policies(model.policies),
        *_weak_keys(texts, model),
    ]


def load_shipped_policies() -> list[tuple[str, str]]:
    """Read the policies that ship: beside the package in a checkout, inside it when installed.

    default.toml comes first: the others stand on it.
    """
    package = Path(__file__).parent
    for directory in (package / "policies", package.parent / "policies"):
        if (directory / "default.toml").is_file():
            files = sorted(
                directory.glob("*.toml"), key=lambda file: (file.name != "default.toml", file.name)
            )
            return [(str(file), _read(str(file), Asked(Origin(str(file), 0)))) for file in files]
    raise ConfigError(
        Origin(str(package / "policies"), 0), "the policies that ship with Mailrail are missing"
    )


def _sections(policies: PolicySet) -> Iterator[Section]:
    for scope in policies.layers.scopes():
        yield from scope.all()


def _read_roots(file: str, asked_by: Asked) -> dict[str, str]:
    """Read the CA file; one that holds no certificate would trust nobody."""
    text = _read(file, asked_by)
    try:
        make_client_context(is_verifying=True, ca_pem=text or "none")
    except (ssl.SSLError, ValueError) as error:
        raise asked_by.refuse(f"{file}: no certificates: {error}") from error
    return {file: text}


def _read_pair(section: Section) -> dict[str, str]:
    """Read the certificate and key that a section of the policies names, and see that they are a pair."""
    certificate, key = (section.settings.get(each) for each in ("tls_certificate", "tls_key"))
    if certificate is None or key is None or not certificate.value:
        return {}
    pair = (("tls_certificate", certificate), ("tls_key", key))
    texts = {
        each.value: _read(each.value, Asked(each.origin, f"{section.header}: key {name}: "))
        for name, each in pair
    }
    try:
        load_certificate(make_client_context(), texts[certificate.value], texts[key.value])
    except (ssl.SSLError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        detail = f"{certificate.value} and {key.value} are no certificate and its key: {reason}"
        raise ConfigError(certificate.origin, f"{section.header}: key tls_certificate: {detail}") from error
    return texts


def _policy_files(place: Path, asked_by: Asked) -> list[Path]:
    """Return a file itself, or the *.toml files of a directory, by name."""
    try:
        if not place.is_dir():
            return [place]
        files = sorted(file for file in place.iterdir() if file.suffix == ".toml")
    except OSError as error:
        raise asked_by.refuse(f"can't read {place}: {error.strerror}") from error
    for file in files:
        if not file.name.isprintable():  # could be neither printed nor told to a shard
            raise asked_by.refuse(f"{place} has a file whose name is not printable UTF-8: {file.name!r}")
    return files


def _asked_by(document: Document, path: KeyPath) -> Asked:
    return Asked(document.origin(path), f"{describe(path[:-1])}: key {path[-1]}: ")


def _read(file: str, asked_by: Asked) -> str:
    try:
        return read_utf8(file)
    except OSError as error:
        raise asked_by.refuse(f"can't read {file}: {error.strerror}") from error


def read_utf8(file: str) -> str:
    """Return the text of a file.

    Raises:
        OSError: it can't be read.
        ConfigError: it is not UTF-8; names the line of the first octet that is wrong.
    """
    octets = Path(file).read_bytes()
    try:
        return octets.decode().replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        line = octets.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            Origin(file, line), f"expected UTF-8, got octet {octets[error.start]:#04x}"
        ) from None


def _key_files(settings: Settings) -> Iterator[tuple[KeyPath, str]]:
    """Yield each mention of a private key: where it stands, and the file."""
    for index, customer in enumerate(settings.customers.values()):
        for number, row in enumerate(customer.dkim):
            yield ("customer", index, "dkim", number, "key"), row.key


def _password_files(document: Document) -> Iterator[tuple[KeyPath, str]]:
    """Yield each mention of a file with a password, as `_key_files` does."""
    for key, raw in document.table.get("routes", {}).items():
        if isinstance(raw, dict) and "password_file" in raw:
            yield ("routes", key, "password_file"), raw["password_file"]


def _with_passwords(texts: Texts, settings: Settings) -> Settings:
    """Fill in the passwords that are in files; the end of the line is no part of one."""
    document = Document(texts.config_path, texts.settings)
    passwords: dict[str, str] = {}
    for path, file in _password_files(document):
        try:
            passwords[file] = credential(texts.keys[file].rstrip("\r\n"))
        except ValueError as error:
            raise ConfigError(
                document.origin(path), f"{describe(path[:-1])}: key {path[-1]}: {file}: {error}"
            ) from None
    if not passwords:
        return settings
    routes = {
        pattern: msgspec.structs.replace(route, password=passwords.get(route.password_file, route.password))
        for pattern, route in settings.routes.items()
    }
    return msgspec.structs.replace(settings, routes=routes)


def _load_keys(texts: Texts, settings: Settings) -> dict[str, PrivateKey]:
    """Load the private keys; one that can't sign is named where it is asked for."""
    keys: dict[str, PrivateKey] = {}
    for path, file in _key_files(settings):
        try:
            keys[file] = _load_key(texts.keys[file])
        except ValueError as error:
            origin = Document(texts.config_path, texts.settings).origin(path)
            raise ConfigError(origin, f"{describe(path[:-1])}: key {path[-1]}: {file}: {error}") from error
    return keys


@lru_cache(MAX_LOADED_KEYS)
def _load_key(text: str) -> PrivateKey:
    return load_key(text.encode())


def _weak_keys(texts: Texts, model: Model) -> Iterator[Finding]:
    document = Document(texts.config_path, texts.settings)
    for path, file in _key_files(model.settings):
        key = model.keys[file]
        if isinstance(key, RSAPrivateKey) and key.key_size < GOOD_RSA_BITS:
            text = (
                f"{describe(path[:-1])}: key {path[-1]}: {file} is an RSA key of {key.key_size} bits:"
                f" receivers may not trust less than {GOOD_RSA_BITS}"
            )
            yield Finding("warning", document.origin(path), text)


def _require_names(kind: str, scopes: dict[str, Scope], known: Iterable[str]) -> None:
    """A policy for a customer or vmta that there is not is a slip of its name, or a left-over."""
    names = set(known)
    for name, scope in scopes.items():
        for section in scope.all():
            if name not in names:
                detail = f"{section.header}: there is no {kind} {name!r}; {suggest(name, names)}"
                raise ConfigError(section.origin, detail)
