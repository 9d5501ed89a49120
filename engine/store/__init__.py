"""The queue on disk: what was accepted, until its last disposition.

records      keys and records as octets, with version and checksum
batch        what one commit will change
index        the schedule and its heads, changed in one transaction
mend         what is doubted about them, put right in a commit
sweep        what is to be doubted: a few entries at a time, without end
rebuild      a delivery without its record, from what its message says
remembered   ids and replies that are known for 24 hours longer
environment  opening one LMDB environment: its lock, its health, its room
commit       one batch into one transaction, committed by a thread
group        group commit: what was staged, and who is told
reading      what is due, what waits, one delivery
lmdb         the store of a shard: staging, group commit
owner        who may use the directory of a store
shelf        small values of domains that are everybody's

pages        LMDB's file without liblmdb: damage is a value
walk         one tree of it
roots        transactions whose meta page is damaged
shapes       which table an entry is of, by its looks
image        the tables as far as they can be read
keylist      many keys in little memory
joined       messages out of bodies and deliveries
verify       is a store whole?
salvage      what can be read, as a stream, from a process of its own
restore      that stream into a store that no engine has open
quarantine   damaged environments, moved aside
compact      a file without its free pages
export       messages as files

memory       the same calls over dicts, for tests of other packages
"""
