"""What each destination is treated to: limits, timers, retries. Built from texts; no file is read here.

model     `Policy`, the complete settings of one path, and `Destination`
fields    which keys a section may have, and what each may hold
layers    what was written where: sections, before they are folded
parse     from texts to `PolicySet`; every error names file, line and key
match     which provider a domain belongs to, by its name or its MX hosts
fold      `PolicySet`: layers folded into policies, cached
explain   where each value of a policy came from, and what binds the throughput
categories  the categories of deferrals and bounces, and what is done about each
reply_rules  [[classify]] and [category.NAME], parsed and in order
normalize  a reply without what differs between replies that say the same
classify  `Classifier`: the category of a reply, by rules over its text and its codes
on_reply  [[....on_reply]], parsed and in order
rule_search  which of these a reply meets
check     what `mailrail check` finds: providers in check_providers, rules in check_rules and check_replies
"""
