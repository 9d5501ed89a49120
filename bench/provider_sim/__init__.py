"""Providers that hide their limits, and how near three ways of sending come to them.

providers   what a provider takes, on a clock that is given
driving     one path over a day of simulated time: the engine's own rates, slots, decisions and bounds
strategies  fixed limits, back-off mode, adaptive limits
table       scenarios, and what is printed of each
real        the same against a sink: does the engine do what the simulation says?
"""
