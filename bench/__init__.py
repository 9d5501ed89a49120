"""Measuring tools; source and sink are those of engine/rig, which the demo uses too.

source       `python -m bench.source`
sink         `python -m bench.sink`
calibrate    source and sink against Postfix's smtp-source and smtp-sink
postfix      a private Postfix instance as the field to beat
mailrail     a private Mailrail under the same load
throughput   the table of `make bench`
memory       an idle shard; memory of processes
backlog      a million messages that wait: memory, and the first delivery after a restart
sessions     2,000 sessions at once against a slow sink: memory of each, rate
scaling      1, 2 and 3 shards on 30 % of a core each
core_share   a part of a core, by cgroup
feeds        SMTP, socket and spool: messages a second in, pick-up
feeding      their load, as a process
latency      5 connections, 50 ms a reply: Mailrail against Postfix
tls_resumption what a connection costs: in clear, under TLS, and resumed
classification how well replies are classified, and how fast
provider_sim how near three kinds of limits come to what a provider hides
stages       the stages of the budget table, in processor time, with allocations
finding      figures, their aims, the machine: how all of these print
watching     a sink that has seen enough
preload      a backlog straight into a store that nobody has open
store_commit where the group commit runs: three ways compared
"""
