"""Program of a test: puts and removes until it is killed, and prints what it was told is durable."""

import asyncio
import sys
from pathlib import Path

from engine.core.envelope import Delivery, Envelope, MessageIds
from engine.store.environment import StoreOptions
from engine.store.lmdb import Store


async def main(path: str) -> None:
    """Print +key when a put is durable, -key before a removal is staged."""
    loop = asyncio.get_running_loop()
    store = Store(Path(path), loop=loop, options=StoreOptions(map_size_bytes=1 << 30, min_free_bytes=0))
    store.open()
    ids = MessageIds(0, b"kill")
    envelope = Envelope("", "acme", "pool", 1_700_000_000.0, 3000, "smtp")
    number = 0
    while True:
        number += 1
        delivery = Delivery(ids.make(1.7e9), 0, envelope, f"d{number % 9}.example", ["u@x.example"], 1.7e9)
        durable = loop.create_future()
        store.put([delivery], b"x" * 3000, durable.set_result)
        assert await durable is None
        print(f"+{delivery.key.hex()}", flush=True)
        if number % 3 == 0:
            print(f"-{delivery.key.hex()}", flush=True)
            store.remove(delivery)


asyncio.run(main(sys.argv[1]))
