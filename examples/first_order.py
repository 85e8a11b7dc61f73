"""A first order: log in, buy, sell to oneself, watch what the venue says, leave nothing behind.

    make run                                # in another terminal
    .venv/bin/python examples/first_order.py

The port of the venue may be given as an argument.
"""

import asyncio
import sys

from engine.clients import Accepted, Executed, OrderEntryClient, Rejected


async def main(port: int) -> None:
    async with OrderEntryClient("127.0.0.1", port, "MAKER1", "demo") as client:
        # Prices and quantities are decimal texts (or integers of wire units); never floats.
        bid = await client.enter("BTC-USDT", "B", "0.5", "60000.00")
        if isinstance(bid, Rejected):
            sys.exit(f"the venue refused the order, reason {bid.reject_reason:04X}")
        print(f"resting: order {bid.user_ref_num}, {bid.quantity_lots} lots at {bid.price_units}")

        # A request is on its way when the call returns; awaiting it gives the venue's answer.
        offer = client.enter("BTC-USDT", "S", "0.2", "60000.00", "3")
        print(f"taking: {type(await offer).__name__}")

        async for message in client.executions():
            match message:
                case Accepted():
                    print(f"  {message.sequence}: accepted order {message.user_ref_num}")
                case Executed(liquidity="R"):
                    print(f"  {message.sequence}: sold {message.quantity_lots} lots")
                case Executed():
                    print(f"  {message.sequence}: bought {message.quantity_lots} lots")
                    break

        canceled = await client.cancel(bid)
        if canceled is not None:
            print(f"canceled: the other {canceled.quantity_lots} lots")


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 9001))
