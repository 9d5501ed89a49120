"""Every metric there is: name, kind, labels, meaning.

Owns: the table. A cell can be made only for a row of it, with exactly its labels, so the reference page,
the dashboards and the code can be compared with one thing.
Never: counts.

Recipients are what `mailrail_messages_total` counts, for every event, so that accepted equals delivered
plus bounced, expired, cancelled and what still waits.
"""

from __future__ import annotations

from typing import NamedTuple

# Doubling from a local relay's hand-over to the four days after which mail expires by default.
QUEUE_BOUNDS_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5, 10, 30, 60, 300, 900, 3600, 14400, 43200, 86400, 345600)
# One round trip in a data center up to the ten minutes of RFC 5321 4.5.3.2.6.
ATTEMPT_BOUNDS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5, 10, 30, 60, 120, 300, 600)
# An fdatasync on NVMe is under 1 ms; 30 ms is the budget of a commit at p99 (design, section 4).
COMMIT_BOUNDS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)


class Metric(NamedTuple):
    """One row: `kind` is counter, gauge or histogram; `bounds` are a histogram's upper ends, in seconds."""

    name: str
    kind: str
    labels: tuple[str, ...]
    meaning: str
    bounds: tuple[float, ...] = ()


_ROWS = (
    Metric(
        "mailrail_messages_total",
        "counter",
        ("event", "customer", "destination"),
        "Recipients by event: accepted, delivered, deferred, bounced, expired, cancelled. "
        "Accepted has no destination yet.",
    ),
    Metric(
        "mailrail_injections_total",
        "counter",
        ("feed", "listener", "result"),
        "Messages offered by injectors; result is accepted, refused at the end of the message, "
        "or skipped (a spool file that can't be claimed).",
    ),
    Metric(
        "mailrail_injected_bytes_total",
        "counter",
        ("feed", "listener"),
        "Octets of accepted messages.",
    ),
    Metric(
        "mailrail_refusals_total",
        "counter",
        ("feed", "code"),
        "Replies above 399 to injectors, by code.",
    ),
    Metric(
        "mailrail_authentications_total",
        "counter",
        ("listener", "result"),
        "AUTH of injectors; result is accepted, failed, limited (too many failures) or busy (put off).",
    ),
    Metric(
        "mailrail_handshakes_total",
        "counter",
        ("listener", "result"),
        "TLS handshakes of injectors; result is done or failed.",
    ),
    Metric(
        "mailrail_shed_total",
        "counter",
        ("feed", "reason"),
        "Connections and messages refused (421) because the shard was overloaded, by reason.",
    ),
    Metric(
        "mailrail_closed_untold_total",
        "counter",
        ("listener", "reason"),
        "Connections closed without a word, before a proxy's header or TLS: too many connections, "
        "or what sheds load, and too many are being told so.",
    ),
    Metric(
        "mailrail_sessions_opened_total",
        "counter",
        ("destination", "result"),
        "Sessions tried; result is opened, or what failed: local, proxy, connect, greeting, ehlo, tls, auth.",
    ),
    Metric(
        "mailrail_transactions_total",
        "counter",
        ("destination", "result"),
        "Transactions ended; result is accepted, temporary, permanent, lost or uncertain.",
    ),
    Metric(
        "mailrail_sent_bytes_total",
        "counter",
        ("destination",),
        "Octets of message content written to peers.",
    ),
    Metric(
        "mailrail_classified_total",
        "counter",
        ("event", "category", "destination"),
        "Recipients deferred and bounced, by the category of the reply.",
    ),
    Metric(
        "mailrail_reply_rules_total",
        "counter",
        ("rule", "action"),
        "Replies that met a rule for replies (action match), and what it did about them: slow, hold, bounce, "
        "retry, skip_mx, no_tls or notify. Behind 500 rules a shard has the rest together, as other.",
    ),
    Metric(
        "mailrail_adaptive_changes_total",
        "counter",
        ("destination", "change"),
        "Times that connections or rate of a source address at a destination followed what the peer showed; "
        "change is lowered or raised (the steps of a slow open too).",
    ),
    Metric(
        "mailrail_uncertain_total",
        "counter",
        (),
        "Recipients retried though the connection was lost after the final dot: possible duplicates.",
    ),
    Metric(
        "mailrail_holds_total",
        "counter",
        ("reason",),
        "Times a decision was no, by reason.",
    ),
    Metric(
        "mailrail_forwarded_total",
        "counter",
        ("kind",),
        "Messages given to another shard: placed when accepted, or handed_over later.",
    ),
    Metric(
        "mailrail_duplicates_refused_total",
        "counter",
        (),
        "Messages from another shard that this one had or remembered.",
    ),
    Metric(
        "mailrail_bounce_messages_total",
        "counter",
        (),
        "Notifications made (RFC 3464): bounce messages, and those that senders asked for.",
    ),
    Metric(
        "mailrail_lookups_total",
        "counter",
        ("result",),
        "DNS look-ups sent; result is found, temporary or permanent.",
    ),
    Metric(
        "mailrail_sts_fetches_total",
        "counter",
        ("result",),
        "MTA-STS policies asked for over https; result is fetched, or a result type of RFC 8460.",
    ),
    Metric(
        "mailrail_dane_lookups_total",
        "counter",
        ("result",),
        "TLSA records looked for at a mail host; result is found, none, insecure (DNSSEC does not vouch "
        "for the host) or failed.",
    ),
    Metric(
        "mailrail_tls_reports_total",
        "counter",
        ("scheme", "result"),
        "TLS reports of a day, by scheme (mailto, https); result is sent or failed (tried again hourly).",
    ),
    Metric("mailrail_damaged_records_total", "counter", (), "Records of the store set aside as damaged."),
    Metric("mailrail_index_mended_total", "counter", (), "Entries of the store's indexes put right."),
    Metric(
        "mailrail_store_quarantines_total",
        "counter",
        (),
        "Damaged stores moved to quarantine.",
    ),
    Metric(
        "mailrail_salvaged_total",
        "counter",
        ("result",),
        "Deliveries of stores in quarantine; result is restored, known (here already) or lost.",
    ),
    Metric(
        "mailrail_store_operations_total",
        "counter",
        ("operation",),
        "Operations committed: put, or all.",
    ),
    Metric("mailrail_log_lines_suppressed_total", "counter", (), "Repeated log lines not written."),
    Metric(
        "mailrail_shard_restarts_total",
        "counter",
        ("shard",),
        "Ends of a shard's process, a stop included.",
    ),
    Metric("mailrail_reloads_total", "counter", ("result",), "Reloads; result is done or refused."),
    Metric(
        "mailrail_queue_seconds",
        "histogram",
        ("destination",),
        "From acceptance to the last disposition of a recipient.",
        QUEUE_BOUNDS_S,
    ),
    Metric(
        "mailrail_attempt_seconds",
        "histogram",
        ("destination",),
        "From MAIL to the peer's reply to the end of the message.",
        ATTEMPT_BOUNDS_S,
    ),
    Metric(
        "mailrail_accept_seconds",
        "histogram",
        ("feed",),
        "From the end of an injected message to our reply.",
        ATTEMPT_BOUNDS_S,
    ),
    Metric("mailrail_commit_seconds", "histogram", (), "One group commit of the store.", COMMIT_BOUNDS_S),
    Metric(
        "mailrail_sessions",
        "gauge",
        ("vmta", "destination", "state"),
        "Sessions by path; state is opening, busy, idle or closing.",
    ),
    Metric("mailrail_inbound_sessions", "gauge", ("listener",), "Sessions of injectors."),
    Metric("mailrail_shedding", "gauge", ("reason",), "1 while a shard takes no new mail, by reason."),
    Metric("mailrail_ready", "gauge", ("pool", "destination"), "Deliveries that wait for capacity."),
    Metric(
        "mailrail_scheduled",
        "gauge",
        ("customer",),
        "Deliveries in the store, waiting ones and those on their way.",
    ),
    Metric(
        "mailrail_held",
        "gauge",
        ("vmta", "destination", "reason"),
        "1 for a path that is held or backs off.",
    ),
    Metric("mailrail_window_messages", "gauge", (), "Deliveries read ahead from the store."),
    Metric("mailrail_window_bytes", "gauge", (), "Octets of message content in memory."),
    Metric("mailrail_store_used_bytes", "gauge", (), "Octets of the store's map in use."),
    Metric("mailrail_store_free_ratio", "gauge", ("shard",), "Free part of map or disk, the smaller."),
    Metric("mailrail_shard_up", "gauge", ("shard",), "1 while the shard reports."),
    Metric("mailrail_anonymous_bytes", "gauge", ("process",), "Anonymous memory (RssAnon)."),
    Metric("mailrail_cpu_seconds_total", "counter", ("process",), "CPU time, user and system."),
)

METRICS: dict[str, Metric] = {row.name: row for row in _ROWS}
