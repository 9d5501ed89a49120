"""What the engine tells: counters, events, log lines. Any row above may tell; nothing here asks back.

catalog      every metric there is: name, kind, labels, meaning
metrics      plain cells that the hot path adds to; snapshots of them
labels       which destinations get a label of their own
exposition   shards' snapshots as one Prometheus page, in the supervisor
events       one struct per disposition, and its line of JSON
eventlog     the file of those lines: synced with the store's commit, rotated, compressed
eventarchive rotated logs: compressed, the oldest removed
log          structured log lines on standard error
"""
