"""The admin API, in the supervisor: what a person or a console may see and ask.

server      HTTP: paths, parameters, errors
parameters  what may be asked: bounds and forms
engine      what the server needs of the engine behind it
merge       one answer out of every shard's
"""
