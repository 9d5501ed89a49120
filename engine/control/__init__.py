"""How the processes of one engine talk: supervisor to shard, shard to shard.

protocol   frames: length and msgpack
bus        a link: requests, notifications, replies over one unix stream
peers      the links of one shard to all others, small and bulk apart
fds        listening sockets handed from supervisor to shard
lifetime   a shard ends with its supervisor
vitals     CPU time and memory of a process, as metrics
"""
