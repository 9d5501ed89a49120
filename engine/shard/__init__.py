"""One engine process: the only place that builds its objects and hands them to each other.

main       the process: event loop, control link, its end
build      the engine of one generation of configuration, wired
resolving  the resolver, with what recipient domains ask of TLS
attempts   failures to log in, counted over all shards
feeds      listeners of this shard, as they come and go
exchange   messages to and from other shards: placing, forwarding, handing over
undelivered what becomes of deliveries that no session carried
lending    deliveries that go to another shard
balance    a backlog for one destination, evened out between shards
leases     the cap on connections over all shards
duties     what the supervisor asks for
answers    what operators ask for: status, paths, queues, messages
retrying   `mailrail retry`
index_watch the store's indexes, looked over while it runs
gauges     what metrics read when somebody looks
reporting  TLS reports of one shard: when they are counted, kept, sent
tls_tally  outcomes of TLS on disk, a file a day
tls_reports sends the reports of days that are over
step       on record before a step that may kill: which delivery it was
store_trouble what is made of the bad news of a store
upkeep     what is done from time to time
long_windows what was spent of windows over a minute, on disk
rules      rules for replies, wired; what they have in force, told and shown
kept_reactions the same on disk
known_peers what is remembered of peers, on disk
orphans    a store that a larger number of shards has left
salvaging  mail of damaged environments, brought back
"""
