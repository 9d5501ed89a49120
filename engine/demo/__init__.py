"""`mailrail demo`: the real engine under limits that bind, judged by what the receiving sinks saw.

scenario        customers, vmtas, destinations, limits; how much mail each gets
plan            the messages, customer by customer
configuration   mailrail.toml and the policies that the scenario means
feeding         a feed by socket or spool, as a process (the one by SMTP is rig.source)
stage           sinks, engine and feeds: started, asked, ended
account         what the sinks saw, from their logs
logfile         lines that another process is writing
backlog         when there was more mail than a path's sessions could hold
verdict         the sinks' account against the scenario: what agrees, what does not
uses            how each path stood against its limits
progress        the live view, and lines where no terminal is
watch           what is gathered for it while the run goes on
tables          the tables at the end
run             the order of it all
"""
