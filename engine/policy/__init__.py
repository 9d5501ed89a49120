"""What each destination is treated to: limits, timers, retries. Built from texts; no file is read here.

model     `Policy`, the complete settings of one path, and `Destination`
fields    which keys a section may have, and what each may hold
layers    what was written where: sections, before they are folded
parse     from texts to `PolicySet`; every error names file, line and key
match     which provider a domain belongs to, by its name or its MX hosts
fold      `PolicySet`: layers folded into policies, cached
explain   where each value of a policy came from, and what binds the throughput
check     what `mailrail check` finds; providers in check_providers, rules for replies in check_rules
"""
