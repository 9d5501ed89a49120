"""From the text of `mailrail.toml` to `Settings`.

Owns: which sections there are and how each becomes a struct.
Never: reads a file; the names in it are paths that others open, absolute but for those of policies.
Fails: ConfigError that names file, line, key, what was expected and the nearest known key.
"""

from __future__ import annotations

from typing import Any

from engine.core.document import Document, KeyPath
from engine.core.errors import ConfigError
from engine.core.fields import Field, describe, is_known, pattern, read_table, read_value, require_table, show
from engine.settings import fields
from engine.settings.cross import check_agreement
from engine.settings.model import (
    AUTH_PROTOCOLS,
    SMTP_PROTOCOLS,
    AdminSettings,
    Credential,
    Customer,
    DkimKey,
    EngineSettings,
    ListenerSettings,
    Pool,
    Route,
    Settings,
    VirtualMTA,
)

_SECTIONS = ("engine", "listener", "admin", "vmta", "pool", "customer", "routes")
_SECRET = Field("password", lambda raw: raw, required=True)


def parse_settings(origin_file: str, text: str) -> Settings:
    """Return the settings that `text` holds; `origin_file` is the name that errors say."""
    document = Document(origin_file, text)
    for key in document.table:
        is_known(document, (), key, _SECTIONS)
    engine = _parse_engine(document)
    settings = Settings(
        engine=engine,
        admin=_parse_admin(document, engine),
        listeners=tuple(
            _parse_listener(document, path, table, engine) for path, table in _tables(document, "listener")
        ),
        vmtas=_by_name(document, "vmta", _parse_vmta),
        pools=_by_name(document, "pool", _parse_pool),
        customers=_by_name(document, "customer", _parse_customer),
        routes=_parse_routes(document),
    )
    check_agreement(document, settings)
    return settings


def _parse_engine(document: Document) -> EngineSettings:
    values = read_table(document, ("engine",), document.table.get("engine", {}), fields.ENGINE)
    values.setdefault("postmaster", f"postmaster@{values['hostname']}")
    values.setdefault("event_log_dir", f"{values['data_dir']}/events")
    return EngineSettings(**values)


def _parse_admin(document: Document, engine: EngineSettings) -> AdminSettings:
    values = read_table(document, ("admin",), document.table.get("admin", {}), fields.ADMIN)
    listen = values.get("listen", f"{engine.data_dir}/admin.sock")
    if listen.startswith("/"):
        return AdminSettings(path=listen)
    address, port = fields.split_host_and_port(listen)
    return AdminSettings(address=address, port=port)


def _parse_listener(
    document: Document, path: KeyPath, table: Any, engine: EngineSettings
) -> ListenerSettings:
    values = read_table(document, path, table, fields.LISTENER)
    protocol = values["protocol"]
    needs = fields.LISTENER_NEEDS[protocol]
    for need in needs:
        if need not in table:
            detail = f"{describe(path)}: a listener of protocol {protocol} needs {need}"
            raise ConfigError(document.origin(path), detail)
    for key, protocols in fields.LISTENER_ONLY.items():
        if key in table and protocol not in protocols:
            detail = f"{describe(path)}: key {key} has no meaning for protocol {protocol}"
            raise ConfigError(document.origin((*path, key)), detail)
    if protocol == "socket":
        read_value(document, (*path, "path"), table["path"], fields.socket_path)
    if protocol in SMTP_PROTOCOLS:
        values["address"], values["port"] = fields.split_host_and_port(values["listen"])
        values.setdefault("hostname", engine.hostname)
        values.setdefault("tls_key", values.get("tls_certificate", ""))
    if protocol in AUTH_PROTOCOLS:
        values.setdefault("allow", fields.ANYWHERE)
    values.setdefault("name", f"{protocol}:{values[needs[0]]}")
    return ListenerSettings(**values)


def _parse_vmta(document: Document, path: KeyPath, table: Any) -> VirtualMTA:
    values = read_table(document, path, table, fields.VMTA)
    sources = values.pop("source")
    v4 = [source for source in sources if ":" not in source]
    v6 = [source for source in sources if ":" in source]
    if len(v4) > 1 or len(v6) > 1:
        detail = f"expected at most one IPv4 and one IPv6 address, got {show(table['source'])}"
        raise ConfigError(document.origin((*path, "source")), f"{describe(path)}: key source: {detail}")
    return VirtualMTA(v4="".join(v4), v6="".join(v6), **values)


def _parse_pool(document: Document, path: KeyPath, table: Any) -> Pool:
    return Pool(**read_table(document, path, table, fields.POOL))


def _parse_customer(document: Document, path: KeyPath, table: Any) -> Customer:
    keys = require_table(document, path, table)
    as_is = {name: Field(name, lambda raw: raw) for name in ("dkim", "credentials")}
    known = {**fields.CUSTOMER, **as_is}
    values = read_table(document, path, keys, known)
    values["dkim"] = tuple(
        DkimKey(**read_table(document, dkim_path, dkim, fields.DKIM))
        for dkim_path, dkim in _items(document, (*path, "dkim"), keys.get("dkim", []))
    )
    values["credentials"] = tuple(
        _parse_credential(document, each_path, each)
        for each_path, each in _items(document, (*path, "credentials"), keys.get("credentials", []))
    )
    if len(values["credentials"]) > fields.MAX_CREDENTIALS:
        detail = f"{describe(path)}: key credentials: expected at most {fields.MAX_CREDENTIALS:,}"
        raise ConfigError(document.origin((*path, "credentials")), detail)
    return Customer(**values)


def _parse_credential(document: Document, path: KeyPath, table: Any) -> Credential:
    """A password in the clear, or a slip of a hash, is a secret: the complaint does not repeat it."""
    values = read_table(document, path, table, {**fields.CREDENTIAL, "password": _SECRET})
    try:
        values["password"] = fields.CREDENTIAL["password"].parse(values["password"])
    except ValueError as error:
        raise ConfigError(
            document.origin((*path, "password")), f"{describe(path)}: key password: {error}"
        ) from None
    return Credential(**values)


def _parse_routes(document: Document) -> dict[str, Route]:
    routes: dict[str, Route] = {}
    for key, raw in require_table(document, ("routes",), document.table.get("routes", {})).items():
        path = ("routes", key)
        domain = key if key == "*" else read_value(document, path, key, pattern)
        if domain in routes:
            raise ConfigError(document.origin(path), f"[routes]: {domain!r} has a route already")
        routes[domain] = _parse_route(document, path, raw)
    return routes


def _parse_route(document: Document, path: KeyPath, raw: Any) -> Route:
    if not isinstance(raw, dict):
        return Route(hosts=read_value(document, path, raw, fields.ROUTE["hosts"].parse))
    route = Route(**read_table(document, path, raw, fields.ROUTE))
    secrets = [key for key in ("password", "password_file") if key in raw]
    if len(secrets) != bool(route.user):
        detail = "expected password or password_file, one of them" if route.user else "expected user as well"
        key = secrets[-1] if secrets else "user"
        raise ConfigError(document.origin((*path, key)), f"{describe(path)}: key {key}: {detail}")
    return route


def _by_name(document: Document, section: str, parse: Any) -> dict[str, Any]:
    """Return the tables of one section as structs by name; a name may stand once."""
    found: dict[str, Any] = {}
    for path, table in _tables(document, section):
        item = parse(document, path, table)
        if item.name in found:
            detail = f"{describe(path)}: key name: there is a {section} {item.name!r} already"
            raise ConfigError(document.origin((*path, "name")), detail)
        found[item.name] = item
    return found


def _tables(document: Document, section: str) -> list[tuple[KeyPath, Any]]:
    return _items(document, (section,), document.table.get(section, []))


def _items(document: Document, path: KeyPath, tables: Any) -> list[tuple[KeyPath, Any]]:
    """Return the path and table of each [[section]]."""
    if isinstance(tables, list):
        return [((*path, index), table) for index, table in enumerate(tables)]
    keys = ".".join(str(key) for key in path if isinstance(key, str))
    raise ConfigError(
        document.origin(path), f"{keys}: expected [[{keys}]], one table each, got {show(tables)}"
    )
