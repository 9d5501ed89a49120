"""How mail comes in: one door, and the feeds that lead to it.

accept     the one door: checks, completes, signs, places, stores
context    what a feed knows of a message besides its envelope
former     where an id is on record that another shard kept before the number of shards changed
terms      what a message asks for, from wherever it says so
signing    which DKIM keys sign for whom
passwords  who an injector is, by the hashes of the configuration
attempts   how often somebody may try a password
shedding   whether this shard takes new mail at all, for every feed
listener   the life of a listener that accepts connections, whatever its feed
smtp       SMTP listeners: who may connect
  smtp_opening    what surrounds a conversation: a proxy's header, TLS
  smtp_session    one connection, around a conversation
socket     the unix stream socket, many messages in flight
  socket_session  one connection
  frames      its frames: submissions and answers
  submission  what a submission may hold
  idempotent  ids that may be repeated for 24 hours
room       for large messages that are being received, shared by connections
spool      the spool directory: which file is claimed when
  names            files that wait for this shard
  flight           claimed files, until they are unlinked or fail
  spool_directory  the files themselves
  suspect          the file on which a shard died
  settled          claims of files that are unlinked
"""
