"""From a stored delivery to its disposition.

site_queue   what is ready for one (pool, site), and which paths may carry it
sites        the ready queues of this shard
obstacles    what stops a ready queue, in words
paths        every path of this shard, with the limits that vmtas of one source address share
readahead    from the store's due queues into ready queues, within a bounded window
scan         the pass over the store's due queues
trickle      what stopped ready queues get to try with, a few queues at a time
resolving    deliveries that wait for the look-up of their domain
dispatcher   hands ready deliveries to sessions; opens sessions where decide() says so
idle         the sessions that have nothing to do
scarcity     who makes room for whom, where connections are scarce
widening     which ready queue gets another vmta of its pool
beginnings   how many tries to open sessions begin in one turn of the loop
avoidance    what should go by another vmta than the last time
opening      connects one session, host by host
attempt      one try of that, address by address
peer_memory  faults of peers that are known for a while
turned_away  hosts that say 4xx to MAIL: the others come first
securing     what a host must show of TLS before it gets mail
tls_outcomes what became of the TLS of sessions, counted by domain
session      one open SMTP session and its transactions (hot path)
line         its transport and its clock
endings      transactions that end out of turn: cut off by a hold, lost
hearing      who hears what peers refuse, as soon as it was read
reacting     what follows from it, as rules for replies say
applying     what they have in force, as paths and hosts know it
bouncing     all that waits of a customer for a destination, where a rule bounces that
flight       a transaction on its way
crowding     too many recipients, told from a full mailbox
adapting     what peers say and do, to bounds of paths
judging      what a refusal means for a recipient: category, action, disposition
settle       outcomes to dispositions: events, store, retries, bounces
settle_cells the counters that it adds to
notices      which notifications a sender is owed, and when
bounces      notifications: made, stored, sent like any mail
handover     deliveries whose pool has no vmta here, to a shard that has one
expiry       the sweep that ends what waited too long, held or not
census       how many deliveries each customer has in the store
"""
