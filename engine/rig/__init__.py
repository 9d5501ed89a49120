"""The rig: load and receiving end around an engine, as processes of their own that share no code with it.

The demo and the benches (bench/) stand on it.

source       load source: SMTP sessions flat out, at a rate or by a plan, accepted ids on record
load         which message is next, and what became of the ones before
job          one message to offer; plans and records
sender       one session of the source
sink         receiving end: counts, judges limits, answers by script, delays that overlap
receiver     one connection of the sink
tally        what the sink counts and how it judges rates
script       scripted replies of the sink
prose        messages that look like mail
control      ask a running sink for its account
certificate  throw-away certificates for STARTTLS
processes    start, await and end processes; their CPU and memory from /proc
"""
