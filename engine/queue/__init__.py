"""What waits, for what, and who goes next. Pure: `now` and `jitter` come in as arguments.

limits      message rates of a path, exact as the peer counts
slots       its connections, the same way
window      the permits of the last T, as the peer may have read them
ready       deficit round robin between customers in one ready queue
scheduled   retry times, expiry, and how far a shard may read ahead
placement   which shard a new message goes to
assignment  which shard owns which vmta
leases      amounts of a limit that spans shards, borrowed in advance
balance     how a backlog is shared between shards whose vmtas carry it
pace        the search for the fastest pace that a peer takes
width       the search for how many connections it lets in
adaptive    both, for one source address and destination
ceilings    named bounds of a path beside its policy's
reactions   rules for replies that have fired: how long, how strongly
path        what decide needs to know of one path
decide      how many sessions to open, or the reason why not
"""
