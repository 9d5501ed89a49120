"""`mailrail serve`: the process above the shards.

serve          the way from a configuration file to a running engine and an exit status
supervisor     starts shards, restarts them, reloads, drains, stops
rollout        brings a new plan to running shards; vmtas move in two phases
plan           what all shards are told: texts, assignment, listeners
slot           one shard number: its process, its restarts
process        one spawned shard: link, listeners' channel, death
listeners      listening sockets, opened once
data_dir       lock, directories, stores left by a smaller shard count
directories    those that the configuration names, made
refusals       file, line and key of what can't come into force
assignments    which vmta belongs to which shard, on disk
poison         deliveries on which shards died, on disk
suspicion      stores on which shards died
figures        the shards' metrics, kept when they die
steering       what the admin API asks of the engine
readiness      whether the engine serves, as systemd and the log are told
notify         systemd's readiness protocol
"""
