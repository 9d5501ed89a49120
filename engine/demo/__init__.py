"""`mailrail demo`: the real engine under limits that bind, judged by what the receiving sinks saw.

scenario        customers, vmtas, destinations, limits; how much mail each gets
plan            the messages, customer by customer
configuration   mailrail.toml and the policies that the scenario means
feeding         a feed by socket or spool, as a process (the one by SMTP is rig.source)
stage           sinks, engine and feeds: started, asked, ended
account         what the sinks saw, from their logs
backlog         when there was more mail than a path's sessions could hold
verdict         the sinks' account against the scenario: what agrees, what does not
progress        the live view, and lines where no terminal is
tables          the tables at the end
run             the order of it all
"""
