"""The stages of the budget table (design, section 9), one benchmark each, in processor time.

    python -m bench.stages [--json FILE]

Each stage is run for a batch of messages without sockets and without waiting, by pytest-benchmark; beside its
budget stand what it took a message, the memory blocks that it left behind, and the most octets that it held
at once. `pytest` alone does not collect them (testpaths is tests).

engine    the objects of a shard, wired and not opened, and stand-ins for what they talk to
stage     one measured stage, its allocations
conftest  fixtures, and the table at the end
"""
