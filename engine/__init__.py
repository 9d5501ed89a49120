"""Mailrail: a virtual-MTA delivery engine. The rows, top to bottom:

__main__ · cli                 what people type
demo                           a run on loopback that is judged
rig                            load and receiving end, for the demo and the benches
client                         for programs that send through the socket
supervisor                     one process: sockets, shards, reload, admin
shard · admin                  shard builds the objects of one engine process and hands them to each other
inject · delivery · control · loading
store · net                    LMDB; sockets and DNS
smtp · message · policy · security · settings · queue      no I/O at all
telemetry
core

A module imports only from rows below its own or from its own package.
"""

__version__ = "0.1.0"
