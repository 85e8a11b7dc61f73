"""Follow a book and its trades: subscribe, trade once, see it, and go on where one was.

    make run                                # in another terminal
    .venv/bin/python examples/follow_feed.py

The ports of feed and order entry may be given as arguments.
"""

import asyncio
import sys

from engine.clients import FeedClient, OrderEntryClient

SYMBOL = "BTC-USDT"


async def trade(port: int) -> None:
    """One trade between two accounts, and nothing left behind."""
    async with OrderEntryClient("127.0.0.1", port, "MAKER1", "demo") as maker, \
            OrderEntryClient("127.0.0.1", port, "TAKER1", "demo") as taker:
        offer = await maker.enter(SYMBOL, "S", "0.5", "60010.00")
        await taker.enter(SYMBOL, "B", "0.2", "60010.00", "3")
        await maker.cancel(offer)


async def main(feed_port: int, order_port: int) -> None:
    async with FeedClient("127.0.0.1", feed_port) as feed:
        await feed.subscribe("book", SYMBOL, depth=10)
        answer = await feed.subscribe("trades", SYMBOL)
        trading = asyncio.create_task(trade(order_port))
        async for message in feed:
            for one in message.get("trades", ()):
                print(f"{one['side']} {one['quantity']} at {one['price']}")
            if message["channel"] == "trades" and message["type"] == "update":
                break
        await trading
        # Every message was checked to follow the one before, every book to have its checksum.
        book = feed.book(SYMBOL)
        print(f"checksums that fitted: {'some' if book.checked else 'none'}")

    # Another program, or this one tomorrow: what happened since then, from the event log.
    async with FeedClient("127.0.0.1", feed_port, encoding="json") as feed:
        await feed.subscribe("trades", SYMBOL, resume_from=answer["seq"], log_id=answer["log"])
        async for message in feed:
            print(f"again: {message['trades'][0]['quantity']} at {message['trades'][0]['price']}")
            break


if __name__ == "__main__":
    asyncio.run(main(*(int(text) for text in sys.argv[1:3]) if len(sys.argv) > 2 else (8001, 9001)))
