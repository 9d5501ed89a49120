"""The queue on disk: what was accepted, until its last disposition.

records      keys and records as octets, with version and checksum
batch        what one commit will change
index        the schedule and its heads, changed in one transaction
remembered   ids and replies that are known for 24 hours longer
environment  opening one LMDB environment: its lock, its health, its room
commit       one batch into one transaction, committed by a thread
reading      what is due, what waits, one delivery
lmdb         the store of a shard: staging, group commit
memory       the same calls over dicts, for tests of other packages
"""
